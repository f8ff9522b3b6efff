"""Our key pairs, CA and revocation list: one immutable snapshot, swapped whole.

There are two degrees of strictness, between which tls_no_sanity_certificate chooses:

    always       without this there is no TLS: files that can be read and understood, keys that
                 belong to their certificates and are of a kind that OpenSSL takes
    check        what libvirtd refuses to start with or warns of (docs/protocol/tls.md,
                 section 7), and what an administrator wants to know before the clients do

The verdicts were compared with libvirtd 9.0.0 on GnuTLS 3.7.9 and 11.3.0 of Debian 13 on 3.8.9. By
intent other than there:

* It looks at the first certificate of cert_file and at the first 16 of ca_file. Here all count,
  and those in cert_file may lead from the server's own to a CA.
* It obeys a revocation list whoever signed it and whenever. OpenSSL refuses every client of a CA
  whose list is not in order. So a list that no CA of ours may have signed is fatal, and one that
  is out of date a warning, since a newer one may come with a reload.
* It starts with a certificate that is revoked, or without a subject or a host name, which its
  clients then refuse. Here each is a warning.
* It takes RSA keys of 1024 bits. OpenSSL does not load them.
"""

import datetime as dt
from dataclasses import dataclass

from cryptography import x509

from proxyd.pki.files import CertificateFiles, Found, KeyPair, never_shown
from proxyd.pki.problems import CertificateError, Problem
from proxyd.pki.sanity import problems_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Everything that was in the files, and what is to be said of them.

    `pairs` come in the order of preference: a client is shown the first that suits it.
    """

    files: CertificateFiles
    pairs: tuple[KeyPair, ...]
    authorities: tuple[x509.Certificate, ...]
    revocations: tuple[x509.CertificateRevocationList, ...]
    warnings: tuple[Problem, ...]


def load_credentials(
    files: CertificateFiles, *, now: dt.datetime, check: bool = True
) -> Credentials:
    """Reads the files, each once. Raises CertificateError with everything that is wrong."""
    found = Found(files)
    problems = [*found.problems, *never_shown(found)]
    if check:
        problems += problems_of(found, now)
    problems = list(dict.fromkeys(problems))  # pairs may share a file
    if any(each.fatal for each in problems):
        raise CertificateError(problems)
    return Credentials(
        files=files,
        pairs=tuple(each.pair for each in found.entries if each.pair),
        authorities=tuple(found.authorities),
        revocations=tuple(found.revocations),
        warnings=tuple(problems),
    )
