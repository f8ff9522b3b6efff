"""A JSON value becomes what a dataclass says it is, or the place is told where it does not.

Known are dataclasses, `X | None`, list[X], tuple[X, ...], dict[str, X], str, bool, int, float and
Any, and whatever types the caller brings a reader for.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from math import isfinite
from reprlib import repr as shortened
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
# What may throw ValueError, whose text is for the user.
Readers = Mapping[type, Callable[[Any], object]]

_PLAIN: Final = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


class NotAsDescribed(ValueError):
    """One line: the place in the document, and what is wrong there."""


def read(kind: type[T], value: object, readers: Readers) -> T:
    """Raises NotAsDescribed."""
    return cast(T, _read(kind, value, readers, ""))


def _read(kind: Any, value: Any, readers: Readers, where: str) -> object:
    if kind is Any:
        return value
    if kind in readers:
        try:
            return readers[kind](value)
        except ValueError as error:
            raise NotAsDescribed(f"{where}: {error}") from None
    if is_dataclass(kind):
        return _members(kind, _expected(dict, "an object", value, where), readers, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        (inner,) = (one for one in arguments if one is not NoneType)
        return None if value is None else _read(inner, value, readers, where)
    if origin in (list, tuple):
        items = _expected(list, "a list", value, where)
        return origin(
            _read(arguments[0], one, readers, f"{where}[{number}]")
            for number, one in enumerate(items)
        )
    if origin is dict:
        entries = _expected(dict, "an object", value, where)
        return {
            name: _read(arguments[1], one, readers, _below(where, name))
            for name, one in entries.items()
        }
    return _scalar(kind, value, where)


def _members(kind: Any, entries: dict[str, Any], readers: Readers, where: str) -> object:
    hints, known = get_type_hints(kind), {one.name: one for one in fields(kind)}
    if unknown := sorted(entries.keys() - known):
        raise NotAsDescribed(f"{_below(where, unknown[0])}: nothing of that name is known")
    for name, one in known.items():
        if one.default is MISSING and one.default_factory is MISSING and name not in entries:
            raise NotAsDescribed(f"{_below(where, name)} is missing")
    return kind(
        **{
            name: _read(hints[name], one, readers, _below(where, name))
            for name, one in entries.items()
        }
    )


def _scalar(kind: Any, value: Any, where: str) -> object:
    """True is no number here; a float may be written as a whole number; no NaN, no infinity."""
    fits = _is_finite(value) if kind is float else type(value) is kind
    if not fits:
        raise _mistaken(_PLAIN[kind], value, where)
    return value


def _is_finite(value: object) -> bool:
    try:
        return type(value) in (int, float) and isfinite(cast(float, value))
    except OverflowError:  # a whole number that no float can hold
        return False


def _expected(kind: type[T], name: str, value: object, where: str) -> T:
    if not isinstance(value, kind):
        raise _mistaken(name, value, where)
    return value


def _mistaken(expected: str, value: object, where: str) -> NotAsDescribed:
    return NotAsDescribed(f"{where or 'it'}: expected {expected} and found {shortened(value)}")


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
