"""How one process tells another what it has: JSON, beside which bytes stand as they are.

    {"up": {"unsent": {"bytes": [0, 5]}, …}}    hello

The texts are small and can be read by a person; what sessions hold is large and is not copied into
them. Both processes are of one daemon, but of two releases: nothing that comes is believed before
its type and its bounds were looked at. `FORMAT` counts up when what was written cannot be read any
more by the code of before; `READS` are those that this code reads.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

# 2: sessions may be held to rules, of which 1 knows nothing and would let them do everything.
FORMAT: Final = 2
READS: Final = frozenset({1, 2})

LONGEST_TEXT: Final = 16 << 20
# The longest call that may be held until it is whole, twice, and what a flow keeps besides.
LONGEST_BYTES: Final = 160 << 20

_BYTES: Final = "bytes"


class Unreadable(ValueError):
    """Not what another process of this daemon's would have sent."""


def packed(document: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The text, and the bytes that stand beside it. Raises Unreadable for what is too long."""
    beside = bytearray()

    def told(value: Any) -> Any:
        if isinstance(value, bytes | bytearray | memoryview):
            at = len(beside)
            beside.extend(value)
            return {_BYTES: [at, len(value)]}
        if isinstance(value, Mapping):
            return {str(key): told(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [told(each) for each in value]
        return value

    text = json.dumps(told(document), separators=(",", ":")).encode("ascii")
    check_lengths(len(text), len(beside))
    return text, bytes(beside)


def check_lengths(text: int, beside: int) -> None:
    """Raises Unreadable."""
    if text > LONGEST_TEXT or beside > LONGEST_BYTES:
        raise Unreadable(f"a message of {text} and {beside} bytes")


def unpacked(text: bytes, beside: bytes) -> dict[str, Any]:
    """What was packed. Raises Unreadable."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"a message is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Unreadable("a message is no object")
    try:
        return {key: _meant(value, beside) for key, value in found.items()}
    except RecursionError as error:
        raise Unreadable("a message is too deep") from error


def _meant(value: Any, beside: bytes) -> Any:
    if isinstance(value, list):
        return [_meant(each, beside) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_BYTES}:
        return _slice(value[_BYTES], beside)
    return {key: _meant(each, beside) for key, each in value.items()}


def _slice(where: Any, beside: bytes) -> bytes:
    match where:
        case [int(at), int(length)] if 0 <= at <= at + length <= len(beside):
            return beside[at : at + length]
    raise Unreadable(f"bytes at {where!r} of {len(beside)}")
