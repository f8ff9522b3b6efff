"""Which certificate is meant, and the revocation list that follows from a ledger."""

from collections.abc import Sequence
from typing import Final

from cryptography import x509

from proxyd.config.quoting import excerpt

from .failures import CannotDo
from .ledger import Ledger, Record
from .signing import Issuer, Validity, revoked_entry, sign_list

REASONS: Final[dict[str, x509.ReasonFlags]] = {
    each.value: each
    for each in (
        x509.ReasonFlags.key_compromise,
        x509.ReasonFlags.affiliation_changed,
        x509.ReasonFlags.superseded,
        x509.ReasonFlags.cessation_of_operation,
        x509.ReasonFlags.privilege_withdrawn,
    )
}

_SHORTEST_SERIAL: Final = 6  # digits of one that is not given whole
_HEXADECIMAL: Final = frozenset("0123456789abcdef")


def demand_reason(reason: str) -> None:
    """ "" or one of REASONS; raises CannotDo for others."""
    if reason and reason not in REASONS:
        raise CannotDo(f"{excerpt(reason)} is no reason; choose from {', '.join(REASONS)}")


def named(which: str, records: Sequence[Record]) -> list[Record]:
    """The records of this name, else those whose serial number begins so."""
    found = [each for each in records if which in each.names]
    digits = which.replace(":", "").lower()
    if found or len(digits) < _SHORTEST_SERIAL or not _HEXADECIMAL.issuperset(digits):
        return found
    return [each for each in records if each.number.startswith(digits)]


def next_list(
    issuer: Issuer,
    ledger: Ledger,
    present: x509.CertificateRevocationList | None,
    validity: Validity,
) -> tuple[x509.CertificateRevocationList, Ledger]:
    """The list that follows the present one, and the ledger with its number."""
    revoked = [(each.serial, each.revocation) for each in ledger.records if each.revocation]
    entries = [revoked_entry(serial, each.at, REASONS.get(each.reason)) for serial, each in revoked]
    # What the ledger does not know was revoked by another program, or before the ledger was lost.
    known = {serial for serial, _ in revoked}
    entries += [each for each in present or () if each.serial_number not in known]
    number = max(ledger.crl_number, _number_of(present)) + 1
    return sign_list(issuer, number, entries, validity), ledger.with_list(number)


def _number_of(crl: x509.CertificateRevocationList | None) -> int:
    if crl is None:
        return 0
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0
