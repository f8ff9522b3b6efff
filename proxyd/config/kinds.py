"""The kinds of value that a key can have, and how a key is declared.

A declaration says all that is true of a key: its kind and default, what it means, what passes, and
when it takes effect. A reload, the reports, the warnings and the documents are made from it.

Each kind reads what stands in the file into the value that the daemon works with, and gives it
back for reports. The kinds are the types of docs/protocol/configuration.md, section 1; file modes
are strings there and numbers here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
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
    """How a value comes out of the file (or raises Unfit) and how it goes back.

    `name` is for people.
    """

    name: str
    read: Callable[[Value, Check], Any]
    content: Callable[[Any], Content]


class When(StrEnum):
    """When a changed value is obeyed."""

    RELOAD = "reload"
    START = "start"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Effect:
    """When a key takes effect; `why_not`, for one that never does, is a clause.

    `in_own_sockets`: it says what the sockets are like that proxyd makes itself. Under systemd the
    socket units decide.
    """

    when: When
    why_not: str = ""
    in_own_sockets: bool = False


AT_RELOAD: Final = Effect(When.RELOAD)
AT_START: Final = Effect(When.START)
IN_OWN_SOCKETS: Final = Effect(When.START, in_own_sockets=True)


def never(why: str) -> Effect:
    """The effect of a key that nothing reads; `why` goes on after "has no effect here: "."""
    return Effect(When.NEVER, why)


@dataclass(frozen=True, slots=True)
class Use:
    """When anything reads a key with a text, and what that has to be then.

    `switches`: only while one of them is on does anything read it; none stand for always. Where all
    are off, libvirt passes over a value that would not do, too. `empty_is_unset`: a text that is
    there and empty, as templates leave it, says as much as none.
    """

    switches: tuple[str, ...] = ()
    check: Check = lambda _: None
    empty_is_unset: bool = False


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
    effect: Effect
    use: Use = Use()

    def read(self, value: Value) -> Any:
        """Return the setting that the file's value stands for; Unfit says what is wrong."""
        if self.use.empty_is_unset and value.content == "":
            return self.default
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
        case other:
            return spelled(other)


def spelled(setting: object) -> str:
    """The same of a setting."""
    match setting:
        case str(text):
            return excerpt(text)
        case int(number):
            return str(int(number))
        case _:
            return "a list"


def switch(default: bool, meaning: str, *, effect: Effect = AT_RELOAD) -> bool:
    """Declare a key that is 0 or 1."""
    return _declare(_SWITCH, default, meaning, effect)


def count(
    default: int,
    meaning: str,
    *,
    check: Check | None = None,
    example: int | None = None,
    effect: Effect = AT_RELOAD,
) -> int:
    """Declare a key with an unsigned number of 32 bits."""
    return _declare(_COUNT, default, meaning, effect, check=check, example=example)


def number(default: int, meaning: str, *, effect: Effect = AT_RELOAD) -> int:
    """Declare a key with a signed number of 32 bits."""
    return _declare(_NUMBER, default, meaning, effect)


def text(
    default: TextT,
    meaning: str,
    *,
    check: Check | None = None,
    example: str | None = None,
    effect: Effect = AT_RELOAD,
    used_with: tuple[str, ...] = (),
    in_use: Check | None = None,
    empty_is_unset: bool = False,
) -> TextT:
    """Declare a key with a string; with the default None it may be unset."""
    use = Use(used_with, in_use or _anything, empty_is_unset)
    return _declare(_TEXT, default, meaning, effect, check=check, example=example, use=use)


def mode(default: int, meaning: str, *, effect: Effect = AT_RELOAD) -> int:
    """Declare a key with the permissions of a socket: an octal string in the file."""
    return _declare(_MODE, default, meaning, effect)


def strings(
    default: ListT,
    meaning: str,
    *,
    each: Check | None = None,
    example: tuple[str, ...] | None = None,
    effect: Effect = AT_RELOAD,
) -> ListT:
    """Declare a key with a list of strings; with the default None it may be unset."""
    return _declare(_STRINGS, default, meaning, effect, check=each, example=example)


def _declare(
    kind: Kind,
    default: SettingT,
    meaning: str,
    effect: Effect,
    *,
    check: Check | None = None,
    example: Setting = None,
    use: Use = Use(),
) -> SettingT:
    spec = Spec(kind, default, meaning, check or _anything, example, effect, use)
    return field(default=default, metadata={"spec": spec})


def _anything(_: object) -> None:
    return None


def _read_whole(value: Value, check: Check, low: int, high: int) -> int:
    content = value.content
    # With low at 0 a minus is wrong even before a zero: docs/protocol/configuration.md, section 2.
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


_SWITCH: Final = Kind("0 or 1", _read_switch, int)
_COUNT: Final = Kind("a whole number from 0", _read_count, _itself)
_NUMBER: Final = Kind("a whole number", _read_number, _itself)
_TEXT: Final = Kind("a string", _read_text, _itself)
_MODE: Final = Kind("an octal mode in quotes", _read_mode, _octal)
_STRINGS: Final = Kind("a list of strings", _read_strings, _itself)
