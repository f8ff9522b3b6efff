"""Which calls a session may make that may not make all."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A call that is allowed with some flags only: its last argument, 32 bits, says which.

    It is allowed if the flags have none of `without`, and, where `with_any` is not 0, one of it.
    """

    without: int = 0
    with_any: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """By (program, procedure): `plain` are allowed as they are, `conditional` as their flags say.

    Whatever is in neither is not allowed: unknown procedures, other programs.
    """

    plain: frozenset[tuple[int, int]]
    conditional: Mapping[tuple[int, int], Condition]
