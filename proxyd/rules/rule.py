"""One line of the rules file, understood."""

from dataclasses import dataclass

from proxyd.rules.grant import Grant
from proxyd.rules.subject import Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`line` counts from 1; `text` is the line as it stands there, without comment.

    `ways` None means all. What `who` and `uris` match is in table.py.
    """

    line: int
    text: str
    ways: frozenset[Way] | None
    who: tuple["Pattern", ...]
    uris: tuple[str, ...]
    grant: Grant


@dataclass(frozen=True, slots=True)
class Pattern:
    """`kind` is user, group, uid, sasl, dn, san, addr or all."""

    kind: str
    text: str
