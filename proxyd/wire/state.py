"""Plain data that the state of a live session is put into: what JSON has, and bytes. Pure.

Whoever takes a state up may run another release than whoever gave it, and it may be damaged: so
each field is checked for its type and its bounds, one that is missing or that nobody knows is an
error as well, and each error is a ValueError that names the field and says nothing of its content.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

Plain: TypeAlias = "bool | int | str | bytes | list[Plain] | dict[str, Plain] | None"
State: TypeAlias = dict[str, Plain]

# Takes what a field holds and returns what it stands for. Raises ValueError.
Check: TypeAlias = Callable[[object], Any]

COUNTED: Final = (1 << 63) - 1  # bytes, calls and nanoseconds: more than anybody lives to see
WORD: Final = (1 << 32) - 1  # a field of a header


def whole(most: int = COUNTED, least: int = 0) -> Check:
    """A number between these, both included."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("is no whole number")  # noqa: TRY004
        if not least <= value <= most:
            raise ValueError(f"is not between {least} and {most}")
        return value

    return check


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")  # noqa: TRY004 (all that is malformed is one)
    return value


def content(most: int, least: int = 0) -> Check:
    """So many bytes."""

    def check(value: object) -> bytes:
        if not isinstance(value, bytes):
            raise ValueError("is no sequence of bytes")  # noqa: TRY004
        if not least <= len(value) <= most:
            raise ValueError(f"has {len(value)} bytes, not between {least} and {most}")
        return value

    return check


def words(most: int) -> Check:
    """Text of so many characters at most."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("is no text")  # noqa: TRY004
        if len(value) > most:
            raise ValueError(f"has {len(value)} characters, {most} are allowed")
        return value

    return check


def items(each: Check, most: int) -> Check:
    """A list."""

    def check(value: object) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError("is no list")  # noqa: TRY004
        if len(value) > most:
            raise ValueError(f"has {len(value)} items, {most} are allowed")
        return [each(item) for item in value]

    return check


def row(*cells: Check) -> Check:
    """A list of just these."""

    def check(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(cells):
            raise ValueError(f"is no list of {len(cells)}")
        return tuple(each(cell) for each, cell in zip(cells, value, strict=True))

    return check


def perhaps(check: Check) -> Check:
    """Nothing, or that."""
    return lambda value: None if value is None else check(value)


def part(value: object) -> dict[str, Any]:
    """A state within a state, which somebody else looks into."""
    if not isinstance(value, dict):
        raise ValueError("is no table")  # noqa: TRY004
    return value


def taken(value: object, checks: Mapping[str, Check]) -> dict[str, Any]:
    """The fields of a state: just these, each as its check returns it. Raises ValueError."""
    state = part(value)
    if state.keys() != checks.keys():
        strange = sorted(map(str, state.keys() - checks.keys()))
        missing = sorted(checks.keys() - state.keys())
        shown = [*(f"{each[:40]!r} is unknown" for each in strange[:3])]
        shown += [f"{each!r} is missing" for each in missing[:3]]
        raise ValueError(", ".join(shown))
    found: dict[str, Any] = {}
    for name, check in checks.items():
        try:
            found[name] = check(state[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return found
