"""What the doctor has to say: how bad it is, what it is, why it matters, what mends it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

# A line of many a fix. Where the service does not run the next client's reads everything anew; to
# start it for that would stop libvirtd, if that is who serves here.
RELOAD: Final = "systemctl try-reload-or-restart virtproxyd.service"

# Names keep their small letter where a sentence begins with them.
_NAMES: Final = ("polkit", "proxyd", "libvirtd", "systemctl", "virt")


class Severity(IntEnum):
    """OK says that something was looked at and is in order."""

    OK = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`code` is for programs and does not change from version to version.

    `fix` has lines for root's bash; what only a person can do or decide is a comment in them.
    """

    severity: Severity
    code: str
    what: str
    why: str = ""
    fix: tuple[str, ...] = ()


def worst(findings: Iterable[Finding]) -> Severity:
    return max((each.severity for each in findings), default=Severity.OK)


def exit_status(findings: Iterable[Finding]) -> int:
    """0 if nothing is worse than a note, 1 for warnings, 2 for errors."""
    return max(0, worst(findings) - Severity.NOTE)


def error(code: str, what: str, why: str = "", fix: Iterable[str] = ()) -> Finding:
    return Finding(severity=Severity.ERROR, code=code, what=what, why=why, fix=tuple(fix))


def warning(code: str, what: str, why: str = "", fix: Iterable[str] = ()) -> Finding:
    return Finding(severity=Severity.WARNING, code=code, what=what, why=why, fix=tuple(fix))


def note(code: str, what: str, why: str = "", fix: Iterable[str] = ()) -> Finding:
    return Finding(severity=Severity.NOTE, code=code, what=what, why=why, fix=tuple(fix))


def fine(code: str, what: str) -> Finding:
    return Finding(severity=Severity.OK, code=code, what=what)


def sentence(text: str) -> str:
    """Somebody else's message as a sentence of its own."""
    word = text.partition(" ")[0]
    capital = word.isalpha() and not word.startswith(_NAMES)
    begun = text[:1].upper() + text[1:] if capital else text
    return begun if begun.endswith(".") else f"{begun}."


def listed(names: Iterable[str]) -> str:
    """Names as words of a sentence."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
