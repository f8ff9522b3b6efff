"""Whether a TLS client's certificate lets it in: libvirt's verdict, with a reason to act on.

Two stages (docs/protocol/tls.md, section 4):

    during the handshake   OpenSSL builds and checks the chain and asks `ChainCheck` about every
                           certificate and every objection; what is refused here ends the
                           handshake with the alert that TLS has for it
    after the handshake    what only libvirt asks of a client's certificate: fitness.py's rules
                           and the list of names; TLS has no alert for these, so the client is sent
                           a goodbye instead of the byte that lets it in

Where OpenSSL objects and GnuTLS, which libvirt uses, does not, the objection is passed over:

* the certificate's purpose: libvirt judges key usage and extended key usage by rules of its own;
* a missing revocation list: it is looked for with every issuer, and few have one.

Nothing else is ever passed over, unless `tls_no_verify_certificate` says so for everything.

Nothing is looked into before its size is known: see bounds.py.
"""

import datetime as dt
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from OpenSSL import SSL, crypto

from proxyd.config.globs import matches
from proxyd.config.quoting import excerpt, one_line
from proxyd.invocation import pasteable
from proxyd.pki.bounds import TooLarge, check_parts, loaded
from proxyd.pki.content import alternative_names
from proxyd.pki.dname import subject_of
from proxyd.pki.fitness import Purpose, flaws_of_leaf
from proxyd.rules.subject import San

_Code = SSL.X509VerificationCodes

_PASSED_OVER: Final = frozenset({_Code.ERR_INVALID_PURPOSE, _Code.ERR_UNABLE_TO_GET_CRL})

# These have no name in pyOpenSSL.
_LEAF_KEY_TOO_SMALL: Final = 66
_CA_KEY_TOO_SMALL: Final = 67
_DIGEST_TOO_WEAK: Final = 68

# In a log line.
_LONGEST_SUBJECT: Final = 500
_LONGEST_SERIAL: Final = 40  # RFC 5280's 20 bytes
_LONGEST_REASON: Final = 150

_REMEMBERED: Final = 64  # names of clients; see bounds.py

_NOT_FROM_OUR_CA: Final = "was not issued by a CA of ours (see ca_file)"
_REASONS: Final[dict[int, str]] = {
    _Code.ERR_UNABLE_TO_GET_ISSUER_CERT: _NOT_FROM_OUR_CA,
    _Code.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: _NOT_FROM_OUR_CA,
    _Code.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: _NOT_FROM_OUR_CA,
    _Code.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "is self-signed, not issued by a CA of ours",
    _Code.ERR_SELF_SIGNED_CERT_IN_CHAIN: "comes from a CA that is not one of ours (see ca_file)",
    _Code.ERR_CERT_SIGNATURE_FAILURE: "has a signature that is not its issuer's",
    _Code.ERR_CRL_SIGNATURE_FAILURE: "cannot be looked up: the revocation list is not signed by the"
    " CA (see crl_file)",
    _Code.ERR_CERT_NOT_YET_VALID: "is not valid yet (is this host's clock right?)",
    _Code.ERR_CERT_HAS_EXPIRED: "has expired",
    _Code.ERR_CRL_NOT_YET_VALID: "cannot be looked up: the revocation list is not valid yet",
    _Code.ERR_CRL_HAS_EXPIRED: "cannot be looked up: the revocation list has expired; make a new"
    " one (proxyd certs crl) and reload",
    _Code.ERR_CERT_CHAIN_TOO_LONG: "has too long a chain",
    _Code.ERR_KEYUSAGE_NO_CRL_SIGN: "cannot be looked up: its CA may not sign revocation"
    " lists (keyUsage lacks cRLSign)",
    _Code.ERR_UNHANDLED_CRITICAL_CRL_EXTENSION: "cannot be looked up: the revocation list has a"
    " critical extension that is not understood",
    _Code.ERR_DIFFERENT_CRL_SCOPE: "cannot be looked up: the revocation list is for other"
    " certificates only",
    _Code.ERR_CERT_REVOKED: "has been revoked",
    _Code.ERR_INVALID_CA: "may not issue certificates (basicConstraints)",
    _Code.ERR_PATH_LENGTH_EXCEEDED: "may not issue certificates this far down (pathLenConstraint)",
    _Code.ERR_KEYUSAGE_NO_CERTSIGN: "may not issue certificates (keyUsage)",
    _Code.ERR_UNHANDLED_CRITICAL_EXTENSION: "has a critical extension that is not understood",
    _Code.ERR_PERMITTED_VIOLATION: "has a name that its CA may not certify (nameConstraints)",
    _Code.ERR_EXCLUDED_VIOLATION: "has a name that its CA may not certify (nameConstraints)",
    _LEAF_KEY_TOO_SMALL: "has too short a key; RSA needs 2048 bits",
    _CA_KEY_TOO_SMALL: "has too short a key; RSA needs 2048 bits",
    _DIGEST_TOO_WEAK: "is signed with a digest that is too weak; use SHA-256",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it. `refusal` is empty for a client that is let in.

    `dname` is the name that may be told to others: None when nothing vouches for it; `names` are
    its other ones, likewise. `remarks` is what libvirt only warns of.
    """

    dname: str | None = None
    names: tuple[San, ...] = ()
    refusal: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(slots=True)
class Inspection:
    """What is known of one handshake so far; it lies on the connection."""

    refusal: str = ""
    verdict: Verdict = field(default_factory=lambda: Verdict(refusal="not judged"))


class ChainCheck:
    """What OpenSSL calls for every certificate of a chain and for every objection.

    `enforce` False is tls_no_verify_certificate: objections are noted and passed over.
    """

    def __init__(self, *, enforce: bool) -> None:
        self._enforce = enforce

    def __call__(
        self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
    ) -> bool:
        if ok or error in _PASSED_OVER:
            return True
        inspection = connection.get_app_data()
        if not inspection.refusal:  # the first objection is the cause
            inspection.refusal = _objection(certificate, error, depth)
        return not self._enforce


class ClientJudge:
    """libvirt's rules for a client whose chain is in order.

    `allowed` None admits every name, an empty list admits nobody.
    """

    def __init__(self, *, enforce: bool, allowed: Sequence[str] | None) -> None:
        self._enforce = enforce
        self._allowed = allowed

    def verdict(self, refusal: str, chain: Sequence[x509.Certificate], now: dt.datetime) -> Verdict:
        """`refusal` is what the chain's check noted, and then nothing else is looked at.

        `chain` is what the client sent, leaf first.
        """
        if refusal:
            verdict = Verdict(refusal=refusal)
        elif not chain:
            verdict = Verdict(refusal="it sent no certificate")
        else:
            verdict = self._of(chain, now)
        if verdict.refusal and not self._enforce:
            # Let in all the same, but nobody vouches for the name.
            return Verdict(remarks=(*verdict.remarks, f"is not verified: {verdict.refusal}"))
        return verdict

    def _of(self, chain: Sequence[x509.Certificate], now: dt.datetime) -> Verdict:
        leaf, *others = chain
        try:
            dname, names = _names_in(leaf)
        except TooLarge as excess:
            return Verdict(refusal=f"its certificate {excess}")
        flaws = flaws_of_leaf(leaf, Purpose.CLIENT, now)
        objections = (
            [] if dname else ["has no subject"],
            [flaw.text for flaw in flaws if flaw.fatal],
            [] if not dname or self._admits(dname) else ["is not in tls_allowed_dn_list"],
            _out_of_date(others, now),
        )
        for texts in objections:
            if texts:
                return Verdict(refusal=f"its certificate {texts[0]}: {described(leaf)}")
        remarks = tuple(flaw.text for flaw in flaws)
        return Verdict(dname=dname, names=names, remarks=remarks)

    def _admits(self, dname: str) -> bool:
        return self._allowed is None or any(matches(each, dname) for each in self._allowed)


@functools.lru_cache(_REMEMBERED)
def _names_in(leaf: x509.Certificate) -> tuple[str | None, tuple[San, ...]]:
    """Its subject and its other names. What is true of a certificate stays so, but for its time.

    Raises TooLarge.
    """
    check_parts(leaf)
    return _name_of(leaf), alternative_names(leaf)


def described(certificate: x509.Certificate) -> str:
    """A certificate for a log line: subject, serial number, validity. Bounded, as is the work."""
    try:
        check_parts(certificate)
    except TooLarge as excess:
        return f"it {excess}"
    serial = f"{certificate.serial_number:x}"
    return (
        f"subject {excerpt(_name_of(certificate) or '', _LONGEST_SUBJECT)},"
        f" serial {serial if len(serial) <= _LONGEST_SERIAL else f'{serial[:_LONGEST_SERIAL]}…'},"
        f" valid {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S}"
        f" to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    )


def _objection(certificate: crypto.X509, error: int, depth: int) -> str:
    whose = "its certificate" if depth == 0 else "the certificate of its CA"
    unknown = f"was refused by OpenSSL (verification error {error})"
    reason = pasteable(_REASONS.get(error, unknown))
    try:
        which = described(loaded(certificate))
    except TooLarge as excess:
        which = f"it {excess}"
    except (ValueError, x509.InvalidVersion) as malformed:
        which = f"it cannot be understood: {reason_of(malformed)}"
    return f"{whose} {reason}: {which}"


def reason_of(malformed: Exception) -> str:
    """What the reader of a certificate says of it, for a log line."""
    return one_line(str(malformed)[:_LONGEST_REASON])


def _name_of(certificate: x509.Certificate) -> str | None:
    try:
        return subject_of(certificate) or None
    except ValueError:
        return None


def _out_of_date(chain: Iterable[x509.Certificate], now: dt.datetime) -> list[str]:
    """Row 10: whatever else a client sends must be in date, whether the chain needs it or not."""
    for each in chain:
        if not each.not_valid_before_utc <= now <= each.not_valid_after_utc:
            return [f"came with another one that is out of date ({described(each)})"]
    return []
