"""One line of the rules file, understood."""

from dataclasses import dataclass
from typing import TypeAlias

from proxyd.rules.glob import Glob
from proxyd.rules.grant import Grant
from proxyd.rules.pattern import Pattern
from proxyd.rules.subject import Way

Together: TypeAlias = tuple[Pattern, ...]  # all of them have to fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`line` counts from 1; `text` is the line as it stands there, without comment.

    `ways` None means all. A client is meant that fits all patterns of one of `who`, and a name that
    fits one of `uris`.
    """

    line: int
    text: str
    ways: frozenset[Way] | None
    who: tuple[Together, ...]
    uris: tuple[Glob, ...]
    grant: Grant
