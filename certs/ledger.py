"""What a CA has issued and revoked, and its form as JSON."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography import x509

from proxyd.pki.dname import subject_of
from proxyd.pki.fitness import Purpose

from .names import alternative_names, common_names

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Revocation:
    """When and why. The reason is X.509's word for it, "" for none."""

    at: dt.datetime
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One certificate."""

    serial: int
    purpose: Purpose
    subject: str  # as tls_allowed_dn_list spells it
    names: tuple[str, ...]  # the common name, then a server's other names
    begins: dt.datetime
    ends: dt.datetime
    revocation: Revocation | None = None

    @property
    def number(self) -> str:
        """The serial number as certtool and openssl print it."""
        return spelled_serial(self.serial)

    def state(self, now: dt.datetime) -> str:
        """One word: valid, revoked, expired or future."""
        if self.revocation:
            return "revoked"
        if now > self.ends:
            return "expired"
        return "future" if now < self.begins else "valid"


@dataclass(frozen=True, slots=True)
class Ledger:
    """All of them, in the order of issue, and the number of the last revocation list."""

    crl_number: int = 0
    records: tuple[Record, ...] = ()

    def with_records(self, *records: Record) -> "Ledger":
        """These added, or put in the place of the one with the same serial number."""
        kept = {each.serial: each for each in self.records}
        kept |= {each.serial: each for each in records}
        return replace(self, records=tuple(kept.values()))

    def with_list(self, number: int) -> "Ledger":
        """After a revocation list of this number."""
        return replace(self, crl_number=number)


def spelled_serial(serial: int) -> str:
    """Hexadecimal, whole bytes."""
    digits = f"{serial:x}"
    return digits.zfill(len(digits) + len(digits) % 2)


def record_of(certificate: x509.Certificate, purpose: Purpose) -> Record:
    """The line for a certificate, perhaps not one of ours: what cannot be read is left out."""
    return Record(
        serial=certificate.serial_number,
        purpose=purpose,
        subject=_subject(certificate),
        names=_names(certificate),
        begins=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
    )


def _subject(certificate: x509.Certificate) -> str:
    try:
        return subject_of(certificate)
    except ValueError:
        return ""


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    others = [
        str(each.value)
        for each in alternative_names(certificate)
        if isinstance(each, x509.DNSName | x509.IPAddress)
    ]
    return tuple(dict.fromkeys([*common_names(certificate), *others]))


def as_json(ledger: Ledger) -> bytes:
    """The ledger's file."""
    document = {
        "version": _VERSION,
        "crl_number": ledger.crl_number,
        "issued": [record_json(each) for each in ledger.records],
    }
    return f"{json.dumps(document, indent=1)}\n".encode()


def record_json(record: Record) -> dict[str, Any]:
    """One certificate, also for people's programs."""
    revocation = record.revocation
    return {
        "serial": record.number,
        "purpose": record.purpose.value,
        "subject": record.subject,
        "names": list(record.names),
        "begins": record.begins.isoformat(),
        "ends": record.ends.isoformat(),
        "revoked": revocation and {"at": revocation.at.isoformat(), "reason": revocation.reason},
    }


def from_json(content: bytes) -> Ledger:
    """The ledger in its file. Raises ValueError and nothing else."""
    try:
        document = json.loads(content)
        if document["version"] != _VERSION:
            raise ValueError(f"its version is {document['version']} and not {_VERSION}")
        records = tuple(_record(each) for each in document["issued"])
        return Ledger(int(document["crl_number"]), records)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no ledger ({type(error).__name__}: {error})") from error


def _record(entry: dict[str, Any]) -> Record:
    revoked = entry["revoked"]
    names: Sequence[str] = entry["names"]
    return Record(
        serial=int(entry["serial"], 16),
        purpose=Purpose(entry["purpose"]),
        subject=str(entry["subject"]),
        names=tuple(map(str, names)),
        begins=_moment(entry["begins"]),
        ends=_moment(entry["ends"]),
        revocation=revoked and Revocation(_moment(revoked["at"]), str(revoked["reason"])),
    )


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} lacks its time zone")
    return moment
