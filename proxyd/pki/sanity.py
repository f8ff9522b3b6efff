"""The sanity checks of our own certificates: what libvirtd refuses to start with or warns of.

docs/protocol/tls.md, section 7; and what an administrator wants to know before the clients
do. tls_no_sanity_certificate leaves all of it out.
"""

import datetime as dt
import shlex
import stat
from collections.abc import Iterator
from typing import Final

from cryptography import x509

from proxyd.config.expiry import EXPIRY_DAYS
from proxyd.pki.content import (
    broken_digest,
    extension_of,
    issuer_in,
    longest_path,
    malformation,
    may_revoke,
    naming,
    signed_list,
    subject_in,
)
from proxyd.pki.files import Entry, Found
from proxyd.pki.fitness import (
    Purpose,
    flaws_of_authority,
    flaws_of_leaf,
    may_issue,
    path_up,
    signed_by,
    spelled,
)
from proxyd.pki.problems import ISSUE, Problem, fatal, warning

_SOON: Final = dt.timedelta(days=EXPIRY_DAYS)


def problems_of(found: Found, now: dt.datetime) -> Iterator[Problem]:
    yield from _of_authorities(found, now)
    yield from _of_lists(found, now)
    for entry in found.entries:
        if entry.certificates:
            yield from _of_server(entry, now)
            yield from _of_revocation(entry, found)
            if found.authorities:
                yield from _of_chain(entry, found, now)
    yield from _of_modes(found)


def _of_authorities(found: Found, now: dt.datetime) -> Iterator[Problem]:
    alone = len(found.authorities) == 1
    fix = "make a new CA (proxyd certs init) and issue all certificates anew"
    for each in found.authorities:
        other = fix if alone else f"take it out if nothing needs it, or {fix}"
        for flaw in flaws_of_authority(each, now):
            text = f"{naming(each)} {flaw.text}"
            yield Problem(path=found.ca_file, text=text, fix=other, fatal=flaw.fatal)
        yield from _of_the_end(found.ca_file, each, now, fix)


def _of_server(entry: Entry, now: dt.datetime) -> Iterator[Problem]:
    path, leaf = entry.certificate_file, entry.certificates[0]
    called = naming(leaf)
    for flaw in flaws_of_leaf(leaf, Purpose.SERVER, now):
        yield Problem(path=path, text=f"{called} {flaw.text}", fix=ISSUE, fatal=flaw.fatal)
    yield from _of_the_end(path, leaf, now, ISSUE)
    if not subject_in(leaf):
        yield warning(path, f"{called} has no subject, and libvirt's clients refuse it", ISSUE)
    if malformation(leaf):
        return
    for each in leaf.extensions:
        if each.critical and isinstance(each.value, x509.UnrecognizedExtension):
            text = f"{called} has a critical extension that clients do not know"
            yield fatal(path, f"{text} ({each.oid.dotted_string})", ISSUE)
    names = extension_of(leaf, x509.SubjectAlternativeName)
    if not any(
        isinstance(each, x509.DNSName | x509.IPAddress) for each in (names.value if names else ())
    ):
        text = f"{called} has no host name (subjectAltName), and clients look for theirs"
        fix = f"{ISSUE}, with every name and address that clients use"
        yield warning(path, text, fix)


def _of_revocation(entry: Entry, found: Found) -> Iterator[Problem]:
    leaf = entry.certificates[0]
    if leaf.serial_number < 0:
        return  # as a broken tool may have made it; it is on no list and cannot be looked up
    for each in found.revocations:
        revoked = each.get_revoked_certificate_by_serial_number(leaf.serial_number)
        if revoked and issuer_in(each) == issuer_in(leaf):
            text = f"{naming(leaf)} was revoked on {spelled(revoked.revocation_date_utc)}"
            yield warning(entry.certificate_file, f"{text}; clients may refuse it", ISSUE)


def _of_chain(entry: Entry, found: Found, now: dt.datetime) -> Iterator[Problem]:
    path, (leaf, *between) = entry.certificate_file, entry.certificates
    # cryptography checks no such signature, so there would seem to be none.
    broken = [
        each
        for each in (leaf, *between)
        if broken_digest(each) and issuer_in(each) != subject_in(each)
    ]
    for each in broken:
        text = f"{naming(each)} is signed with {broken_digest(each)}, and clients refuse that"
        yield fatal(path, text, ISSUE)
    if broken:
        return
    above = path_up(leaf, between=between, authorities=found.authorities)
    if not above:
        yield _of_no_way_up(entry, found)
        return
    *steps, top = above
    for each in steps:
        fix = "put a newer one there"
        for flaw in flaws_of_authority(each, now):
            text = f"{naming(each)} {flaw.text}"
            yield Problem(path=path, text=text, fix=fix, fatal=flaw.fatal)
        yield from _of_the_end(path, each, now, fix)
    for below, each in enumerate(above):
        longest = longest_path(each)
        if longest is not None and below > longest:
            text = f"{naming(each)} allows {longest} CAs below it, and here are {below}"
            yield fatal(path, f"{text} (pathLenConstraint)", ISSUE)
    shown = subject_in(top) in map(subject_in, between)
    if not shown and any(each != top and signed_by(top, each) for each in found.authorities):
        # Clients are sent what is in cert_file and nothing of ca_file.
        text = f"{naming(leaf)} was issued by {subject_in(top)}, which is no root and not in here"
        fix = f"append the certificate of {subject_in(top)}, so that clients need the root alone"
        yield warning(path, text, fix)


def _of_no_way_up(entry: Entry, found: Found) -> Problem:
    """Why our certificate leads to no CA of ours."""
    last, *between = entry.certificates
    while above := [each for each in between if may_issue(each) and signed_by(last, each)]:
        last = above[0]
        between.remove(last)
    issuer, ca = issuer_in(last), found.ca_file
    namesakes = [each for each in (*between, *found.authorities) if subject_in(each) == issuer]
    fix = f"put the CA that signed it into {ca}, or {ISSUE}"
    if signed_by(last, last):
        why = f"is self-signed and not in {ca}"
    elif any(signed_by(last, each) for each in namesakes):
        why = f"was issued by {issuer}, which may not issue any (keyUsage lacks keyCertSign)"
        fix = "make a new CA (proxyd certs init) and issue all certificates anew"
    elif namesakes:
        why = f"names {issuer} as its issuer, but the CA of that name in {ca} did not sign it"
    else:
        why = f"was issued by {issuer}, which is not in {ca}"
    return fatal(entry.certificate_file, f"{naming(last)} {why}", fix)


def _of_lists(found: Found, now: dt.datetime) -> Iterator[Problem]:
    in_date = {issuer_in(each) for each in found.revocations if not _out_of_date(each, now)}
    for each in found.revocations:
        which = f"the revocation list of {issuer_in(each) or 'nobody'}"
        signers = [ca for ca in found.authorities if signed_list(each, ca)]
        if broken_digest(each):
            text = f"{which} is signed with {broken_digest(each)}, which anybody can forge"
            yield fatal(found.crl_file, text, "make a new one (proxyd certs crl)")
        elif found.authorities and not signers:
            text = f"{which} is signed by no CA in {found.ca_file}"
            fix = "put the CA that signed it into ca_file, or make a new list (proxyd certs crl)"
            yield fatal(found.crl_file, text, fix)
        elif signers and not any(map(may_revoke, signers)):
            text = f"{which} is signed by a CA that may not (keyUsage lacks cRLSign)"
            fix = "make a CA that may (proxyd certs init), or leave out crl_file"
            yield fatal(found.crl_file, text, fix)
        if issuer_in(each) not in in_date:  # one that is suffices
            text = f"{which} {_out_of_date(each, now)}, and clients of that CA are refused"
            fix = "make a new one (proxyd certs crl) and reload"
            yield warning(found.crl_file, text, fix)


def _out_of_date(crl: x509.CertificateRevocationList, now: dt.datetime) -> str:
    if crl.next_update_utc and now > crl.next_update_utc:
        return f"expired on {spelled(crl.next_update_utc)}"
    if now < crl.last_update_utc:
        return f"is not valid before {spelled(crl.last_update_utc)}"
    return ""


def _of_modes(found: Found) -> Iterator[Problem]:
    keys = {each.key_file for each in found.entries}
    for path, file in found.files.items():
        mode = file.mode if file else 0
        if path in keys and mode & stat.S_IROTH:
            text = "every user of this host may read this key"
            group = " (or 640)" if mode & stat.S_IRGRP else ""
            yield warning(path, text, f"chmod 600{group} {shlex.quote(path)}")
        if mode & (stat.S_IWOTH | (stat.S_IWGRP if path in keys else 0)):
            yield warning(path, "others may change it", f"chmod go-w {shlex.quote(path)}")


def _of_the_end(
    path: str, certificate: x509.Certificate, now: dt.datetime, fix: str
) -> Iterator[Problem]:
    end = certificate.not_valid_after_utc
    if now <= end <= now + _SOON:
        left = (end - now).days
        days = f"in {left} day{'' if left == 1 else 's'}"
        text = f"{naming(certificate)} expires on {spelled(end)}, {days}"
        yield warning(path, text, fix)
