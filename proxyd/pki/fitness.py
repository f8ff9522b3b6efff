"""Whether a certificate fits its use: libvirt's rules, for our own files and for clients.

They are rows 3 and 7 to 9 of docs/protocol/tls.md, section 4, as libvirt 11.6 has them, and what
libvirt asks of a CA before it starts. A client's chain is OpenSSL's matter; `path_up` is for the
chain of our own certificate.

Nothing here raises, whatever is in the certificate. cryptography reads all extensions or none, so
a malformed one is a flaw wherever it stands; GnuTLS would read past some of them.
"""

import datetime as dt
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from proxyd.pki.content import extension_of, malformation


class Purpose(Enum):
    """What a certificate is shown for."""

    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong, as words that go on after "the certificate …".

    What is not fatal is worth a warning: libvirt obeys a usage only where it is marked critical.
    """

    text: str
    fatal: bool


_OIDS: Final = {
    Purpose.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Purpose.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}
# These alone grant nothing but themselves, see `_grants`.
_NARROW: Final = frozenset({*_OIDS.values(), ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})


def flaws_of_leaf(certificate: x509.Certificate, purpose: Purpose, now: dt.datetime) -> list[Flaw]:
    """What is wrong with a server's or a client's own certificate."""
    flaws = list(_flaws_of_time(certificate, now))
    malformed = malformation(certificate)
    if malformed:
        return [*flaws, Flaw(malformed, fatal=True)]
    constraints = extension_of(certificate, x509.BasicConstraints)
    if constraints and constraints.value.ca:
        text = f"is a CA's, not a {purpose.value}'s (basicConstraints has CA:TRUE)"
        flaws.append(Flaw(text, fatal=True))
    return [*flaws, *_flaws_of_usage(certificate), *_flaws_of_purpose(certificate, purpose)]


def flaws_of_authority(certificate: x509.Certificate, now: dt.datetime) -> list[Flaw]:
    """What is wrong with a CA's certificate."""
    flaws = list(_flaws_of_time(certificate, now))
    malformed = malformation(certificate)
    if malformed:
        return [*flaws, Flaw(malformed, fatal=True)]
    constraints = extension_of(certificate, x509.BasicConstraints)
    if not (constraints and constraints.value.ca):
        flaws.append(Flaw("is no CA's (basicConstraints lacks CA:TRUE)", fatal=True))
    usage = extension_of(certificate, x509.KeyUsage)
    if usage and not usage.value.key_cert_sign:
        text = "is not for signing certificates (keyUsage lacks keyCertSign)"
        flaws.append(Flaw(text, fatal=usage.critical))
    return flaws


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether this issuer's name and signature are on the certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def may_issue(issuer: x509.Certificate) -> bool:
    """Whether its key usage lets a chain go through this CA, for which critical or not is one.

    A malformed one is told of by `flaws_of_authority`.
    """
    usage = None if malformation(issuer) else extension_of(issuer, x509.KeyUsage)
    return usage is None or usage.value.key_cert_sign


def path_up(
    leaf: x509.Certificate,
    *,
    between: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
) -> list[x509.Certificate]:
    """What stands above a certificate, up to the first authority; [] if it leads to none."""
    paths = deque([[leaf]])
    seen = {leaf}
    while paths:
        path = paths.popleft()
        for authority in authorities:
            if may_issue(authority) and signed_by(path[-1], authority):
                return [*path[1:], authority]
        for each in between:
            if each not in seen and may_issue(each) and signed_by(path[-1], each):
                seen.add(each)
                paths.append([*path, each])
    return []


def spelled(moment: dt.datetime) -> str:
    """A date as it stands in messages."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _flaws_of_time(certificate: x509.Certificate, now: dt.datetime) -> Iterator[Flaw]:
    # Both ends belong to it.
    if now > certificate.not_valid_after_utc:
        yield Flaw(f"expired on {spelled(certificate.not_valid_after_utc)}", fatal=True)
    if now < certificate.not_valid_before_utc:
        begin = spelled(certificate.not_valid_before_utc)
        yield Flaw(f"is not valid before {begin} (is this host's clock right?)", fatal=True)


def _flaws_of_usage(certificate: x509.Certificate) -> Iterator[Flaw]:
    usage = extension_of(certificate, x509.KeyUsage)
    if not usage:
        return
    # libvirt before 11.6 asked for keyEncipherment as well, which most kinds of keys cannot have.
    if not usage.value.digital_signature:
        yield Flaw("is not for signatures (keyUsage lacks digitalSignature)", usage.critical)


def _flaws_of_purpose(certificate: x509.Certificate, purpose: Purpose) -> Iterator[Flaw]:
    usage = extension_of(certificate, x509.ExtendedKeyUsage)
    if usage and not _grants(usage.value, purpose):
        text = f"is not for a {purpose.value} (extendedKeyUsage lacks {purpose.value}Auth)"
        yield Flaw(text, usage.critical)


def _grants(usage: x509.ExtendedKeyUsage, purpose: Purpose) -> bool:
    # libvirt means to let anyExtendedKeyUsage grant everything and has the comparison the wrong
    # way round: every other purpose does, say codeSigning, and that one alone does not.
    return any(each == _OIDS[purpose] or each not in _NARROW for each in usage)
