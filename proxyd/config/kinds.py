"""The kinds of value that a key can have, and how a key is declared.

Each kind reads what stands in the file into the value that the daemon works with, and gives it
back for reports. The kinds are the types of reference/config.md section 1; file modes are strings
there and numbers here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from proxyd.config.grammar import Content, Value
from proxyd.config.quoting import excerpt

Setting: TypeAlias = bool | int | str | tuple[str, ...] | None

# A check answers what was expected, in words that go on after "to be", or None for a fine value.
Check: TypeAlias = Callable[[Any], str | None]

_OCTAL_MODE: Final = re.compile(r"0*[0-7]{1,3}")

SettingT = TypeVar("SettingT", bound=Setting)
TextT = TypeVar("TextT", bound=str | None)
ListT = TypeVar("ListT", bound=tuple[str, ...] | None)


class Unfit(Exception):
    """A value is not what its key asks for; `expected` goes on after the key's name."""

    def __init__(self, expected: str, value: Value) -> None:
        super().__init__(expected, value)
        self.expected = f"{expected}, not {shown(value)}"
        self.line = value.line
        self.column = value.column


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value comes out of the file (or raises Unfit) and how it goes back."""

    read: Callable[[Value, Check], Any]
    content: Callable[[Any], Content]


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that is declared of one key besides its name and its type.

    The example is for a key whose default is to be absent from the file.
    """

    kind: Kind
    default: Setting
    meaning: str
    check: Check
    example: Setting

    def read(self, value: Value) -> Any:
        """Return the setting that the file's value stands for; Unfit says what is wrong."""
        return self.kind.read(value, self.check)

    def content(self, setting: Any) -> Content | None:
        """Return what the file has to say to get this setting; None: only leaving it out does."""
        if setting is None:
            return None
        content = self.kind.content(setting)
        parts = content if isinstance(content, tuple) else (content,)
        return content if all(self.check(part) is None for part in parts) else None


def shown(value: Value) -> str:
    """Describe a value in a message."""
    match value.content:
        case int(number):
            return f"-{abs(number)}" if value.signed else str(number)
        case str(text):
            return excerpt(text)
        case _:
            return "a list"


def switch(default: bool, meaning: str) -> bool:
    """Declare a key that is 0 or 1."""
    return _declare(_SWITCH, default, meaning)


def count(
    default: int, meaning: str, *, check: Check | None = None, example: int | None = None
) -> int:
    """Declare a key with an unsigned number of 32 bits."""
    return _declare(_COUNT, default, meaning, check=check, example=example)


def number(default: int, meaning: str) -> int:
    """Declare a key with a signed number of 32 bits."""
    return _declare(_NUMBER, default, meaning)


def text(
    default: TextT, meaning: str, *, check: Check | None = None, example: str | None = None
) -> TextT:
    """Declare a key with a string; with the default None it may be unset."""
    return _declare(_TEXT, default, meaning, check=check, example=example)


def mode(default: int, meaning: str) -> int:
    """Declare a key with the permissions of a socket: an octal string in the file."""
    return _declare(_MODE, default, meaning)


def strings(
    default: ListT,
    meaning: str,
    *,
    each: Check | None = None,
    example: tuple[str, ...] | None = None,
) -> ListT:
    """Declare a key with a list of strings; with the default None it may be unset."""
    return _declare(_STRINGS, default, meaning, check=each, example=example)


def _declare(
    kind: Kind,
    default: SettingT,
    meaning: str,
    *,
    check: Check | None = None,
    example: Setting = None,
) -> SettingT:
    spec = Spec(kind, default, meaning, check or _anything, example)
    return field(default=default, metadata={"spec": spec})


def _anything(_: object) -> None:
    return None


def _read_whole(value: Value, check: Check, low: int, high: int) -> int:
    content = value.content
    # With low at 0 a minus is wrong even before a zero: config.md section 2.
    if not isinstance(content, int) or not low <= content <= high or (value.signed and low == 0):
        wanted = "0 or 1" if high == 1 else f"a whole number from {low} to {high}"
        raise Unfit(f"to be {wanted}", value)
    _hold(check(content), "to be", value)
    return content


def _read_switch(value: Value, check: Check) -> bool:
    return bool(_read_whole(value, check, 0, 1))


def _read_count(value: Value, check: Check) -> int:
    return _read_whole(value, check, 0, 2**32 - 1)


def _read_number(value: Value, check: Check) -> int:
    return _read_whole(value, check, -(2**31), 2**31 - 1)


def _read_text(value: Value, check: Check) -> str:
    if not isinstance(value.content, str):
        raise Unfit("to be a string in quotes", value)
    _hold(check(value.content), "to be", value)
    return value.content


def _read_mode(value: Value, _: Check) -> int:
    if not isinstance(value.content, str) or not _OCTAL_MODE.fullmatch(value.content):
        raise Unfit('to be an octal mode in quotes, from "0" to "0777"', value)
    return int(value.content, base=8)


def _read_strings(value: Value, check: Check) -> tuple[str, ...]:
    if not isinstance(value.content, tuple):
        raise Unfit('to be a list of strings such as [ "one", "two" ]', value)
    found = []
    for item in value.content:
        if not isinstance(item.content, str):
            raise Unfit("to hold only strings in quotes", item)
        _hold(check(item.content), "to hold only", item)
        found.append(item.content)
    return tuple(found)


def _hold(expected: str | None, verb: str, value: Value) -> None:
    if expected is not None:
        raise Unfit(f"{verb} {expected}", value)


def _itself(setting: Any) -> Any:
    return setting


def _octal(setting: int) -> str:
    return f"{setting:04o}"


_SWITCH: Final = Kind(_read_switch, int)
_COUNT: Final = Kind(_read_count, _itself)
_NUMBER: Final = Kind(_read_number, _itself)
_TEXT: Final = Kind(_read_text, _itself)
_MODE: Final = Kind(_read_mode, _octal)
_STRINGS: Final = Kind(_read_strings, _itself)
