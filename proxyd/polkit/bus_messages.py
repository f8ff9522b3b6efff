"""Messages of the system bus, of which only answers to calls are looked into.

Any user of the host may send signals straight to proxyd's connection, as many and as long as D-Bus
allows (128 MiB); the bus passes them on. So the type is looked at first, and what is no answer
streams by without being kept or unpacked. Answers come from whom we have asked, for which the bus
vouches.

jeepney unpacks. What an answer says is unpacked only if its signature is the one expected: a
signature out of the blue may describe an array of nothing, upon which jeepney would count for ever.
"""

import struct
from dataclasses import dataclass
from typing import Any, Final

from jeepney.low_level import (
    Header,
    HeaderFields,
    MessageType,
    parse_signature,
)

# What proxyd is told are verdicts and errors, of some hundred bytes. Who waits for one that is
# longer than this waits in vain, and only he.
MESSAGE_LIMIT: Final = 65536

_LONGEST: Final = 2**27  # D-Bus's own limit
_FIXED: Final = 16  # bytes of a message that say of which type it is and how long
_ANSWERS: Final = (MessageType.method_return.value, MessageType.error.value)

# All that jeepney raises for bytes that are no message of D-Bus.
_NONSENSE: Final = (
    ValueError,
    LookupError,
    TypeError,
    AssertionError,
    OverflowError,
    RecursionError,
    struct.error,
)


class MalformedMessage(Exception):
    """The bytes are no message of D-Bus."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A message that answers a call, its body still packed. `error` is None for a return."""

    serial: int  # of the call
    error: str | None
    signature: str
    _header: Header
    _packed: bytes
    _body_at: int

    def values(self, expected: str) -> tuple[Any, ...]:
        """The body of this signature, which holds no variant. Raises MalformedMessage.

        Booleans come as the number that they are, of which 0 and 1 are right.
        """
        if self.signature != expected:
            raise MalformedMessage(f"its signature is {self.signature!r}, not {expected!r}")
        try:
            # As a number, because jeepney takes any number but 0 for "true".
            body = parse_signature(list(f"({expected.replace('b', 'u')})"))
            values, end = body.parse_data(self._packed, self._body_at, self._header.endianness)
        except _NONSENSE as error:
            raise MalformedMessage(f"its body is broken: {type(error).__name__}") from error
        if end != len(self._packed):
            raise MalformedMessage("its body has another length than its header says")
        return tuple(values)

    def text(self) -> str:
        """What an error says; empty if it says nothing that can be read."""
        try:
            return str(self.values("s")[0])
        except MalformedMessage:
            return ""


class Answers:
    """Cuts what the bus sends into messages and gives out the answers among them.

    Holds one message of MESSAGE_LIMIT and what was fed behind it, whatever comes.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._passing = 0  # bytes of a message that nobody wants, which are still to come

    @property
    def held(self) -> int:
        """How many bytes wait for more."""
        return len(self._held)

    def receive_data(self, received: bytes | memoryview) -> list[Answer]:
        """In the order in which they came. Raises MalformedMessage."""
        self._held += received
        answers = []
        while self._let_pass() and len(self._held) >= _FIXED:
            size = message_size(self._held)
            if self._held[1] not in _ANSWERS or size > MESSAGE_LIMIT:
                self._passing = size
                continue
            if len(self._held) < size:
                break
            answers.append(answer_in(bytes(self._held[:size])))
            del self._held[:size]
        return answers

    def _let_pass(self) -> bool:
        """Drops what nobody wants; whether all of it has come."""
        dropped = min(self._passing, len(self._held))
        del self._held[:dropped]
        self._passing -= dropped
        return not self._passing


def message_size(beginning: bytes | bytearray) -> int:
    """How long the message is that begins so, from its first 16 bytes. Raises MalformedMessage."""
    order = _byte_order(beginning)
    if order is None:
        raise MalformedMessage("it has no byte order")
    body, _, fields = struct.unpack_from(f"{order}III", beginning, 4)
    size: int = _FIXED + fields + -fields % 8 + body
    if size > _LONGEST:
        raise MalformedMessage(f"it has {size} bytes, of which D-Bus allows {_LONGEST}")
    return size


def answer_in(packed: bytes) -> Answer:
    """Of one whole message of a type that answers. Raises MalformedMessage."""
    # An array of an empty structure has as many elements as one likes and no bytes. No field of a
    # header may contain brackets but the signature, and in that these two are never neighbours.
    if b"()" in packed[: len(packed) - _body_size(packed)]:
        raise MalformedMessage("its header contains an empty structure")
    try:
        header, fields_end = Header.from_buffer(packed)
    except _NONSENSE as error:
        raise MalformedMessage(f"its header is broken: {type(error).__name__}") from error
    serial = header.fields.get(HeaderFields.reply_serial)
    signature = header.fields.get(HeaderFields.signature, "")
    name = header.fields.get(HeaderFields.error_name, "")
    if not (isinstance(serial, int) and isinstance(signature, str) and isinstance(name, str)):
        raise MalformedMessage("a field of its header has another type than it must have")
    return Answer(
        serial,
        name if header.message_type is MessageType.error else None,
        signature,
        header,
        packed,
        fields_end + -fields_end % 8,
    )


def _body_size(packed: bytes) -> int:
    size: int = struct.unpack_from(f"{_byte_order(packed)}I", packed, 4)[0]
    return size


def _byte_order(packed: bytes | bytearray) -> str | None:
    return {ord("l"): "<", ord("B"): ">"}.get(packed[0])
