"""What a rule gives: how far a session may go, and its limits."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Level(StrEnum):
    """How far. `SET` is a list of libvirt's permissions, in `Grant.words`."""

    DENY = "deny"
    READ = "read"  # the daemon's read-only socket, with the read-only flag
    SET = "set"
    WRITE = "write"  # everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """`name` is the word in the rule: deny, read, operate, write, or the name of a set.

    `sessions`: as many at one time of one client identity, 0 for any number; `calls_per_s`: of one
    client identity, 0 for any number; `idle_s`: a session in which nothing happens for so long is
    ended, 0 for never; `until_s`: CLOCK_REALTIME at which the rule ends, 0 for never.
    """

    level: Level
    name: str
    words: tuple[str, ...] = ()
    sessions: int = 0
    calls_per_s: float = 0.0
    idle_s: int = 0
    until_s: float = 0.0


EVERYTHING: Final = Grant(level=Level.WRITE, name="write")
