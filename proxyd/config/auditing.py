"""What is recorded, and where records go: `proxyd_audit` and `proxyd_audit_output`."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from proxyd.config.quoting import excerpt

AuditKind: TypeAlias = Literal["journald", "syslog", "file"]

SESSIONS: Final = "sessions"
CHANGES: Final = "changes"
ALL: Final = "all"
SCOPES: Final = (SESSIONS, CHANGES, ALL)

_TARGETS: Final[dict[AuditKind, str]] = {"syslog": "identifier", "file": "path"}


class AuditOutputUnclear(ValueError):
    """The text of an output cannot be understood; its own text is the reason."""


@dataclass(frozen=True, slots=True)
class AuditOutput:
    """`target` is the file's path or the syslog identifier, else None."""

    kind: AuditKind
    target: str | None = None

    def __str__(self) -> str:
        return self.kind if self.target is None else f"{self.kind}:{self.target}"


def parse_audit_output(text: str) -> AuditOutput:
    """Raises AuditOutputUnclear. A path is absolute, and may hold anything."""
    word, _, target = text.partition(":")
    kind = next((known for known in get_args(AuditKind) if known == word), None)
    if kind is None:
        raise AuditOutputUnclear(f"{excerpt(text)} is none of them")
    needed = _TARGETS.get(kind)
    if needed is None:
        if ":" in text:
            raise AuditOutputUnclear(f'{excerpt(text)}: nothing may follow "{kind}"')
        return AuditOutput(kind)
    fits = target.startswith("/") if kind == "file" else target.isprintable() and bool(target)
    if not fits or "\0" in target:
        wanted = "an absolute path" if kind == "file" else "an identifier"
        raise AuditOutputUnclear(f'{excerpt(text)}: {wanted} must follow "{kind}:"')
    return AuditOutput(kind, target)


def records_sessions(asked: tuple[str, ...]) -> bool:
    """Whoever wants to know what was changed wants to know by whom."""
    return bool(asked)


def records_changes(asked: tuple[str, ...]) -> bool:
    return CHANGES in asked or ALL in asked


def records_reads(asked: tuple[str, ...]) -> bool:
    return ALL in asked
