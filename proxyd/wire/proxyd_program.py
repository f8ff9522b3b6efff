"""The calls of proxyd's own program: arguments and results as bytes, both ways.

They go over the admin socket, framed like every other call, version 1. Results that a person or a
script reads are JSON texts, so that a newer daemon can tell an older command more than it knows:
docs/status.md has their keys.

| # | name | arguments | result |
| --- | --- | --- | --- |
| 1 | STATUS | u32 flags (bit 0: ask the daemons; bit 1: those with sessions) | string: an object |
| 2 | LIST_CLIENTS | u64 after; u32 most (at most 64) | string: a list, by their numbers |
| 3 | CLOSE_CLIENT | u64 number | nothing |
| 4 | RELOAD | nothing | string: what was done |
| 5 | METRICS | nothing | string: Prometheus' text format (docs/metrics.md) |
| 6 | DRAIN | u32 flags (bit 0: let in again) | string: an object |
| 7 | UPGRADE | nothing | string: an object (admin/document.py, Upgraded) |
| 8 | RULES | u32 flags (bit 0: do it) | string: an object (admin/document.py, Applied) |

A list of thousands is asked for page by page: `after` is the last number of the page before, 0 at
first. So no reply is large and no page holds the daemon up.

Reading raises MalformedFrame.
"""

from typing import Final, NamedTuple

from proxyd.wire.frame import Frame, FrameType, Header
from proxyd.wire.programs import OWN_PROGRAM, VERSION, Own
from proxyd.wire.xdr import MalformedFrame, Reader, Writer

ASK_DAEMONS: Final = 1  # bit 0 of STATUS's flags
ASK_BUSY: Final = 2  # bit 1: of the daemons those that have sessions, and so are running
LET_IN: Final = 1  # bit 0 of DRAIN's flags
APPLY_NOW: Final = 1  # bit 0 of RULES' flags
LONGEST_PAGE: Final = 64  # 1 ms of the interpreter; 256 held sessions up for 4 ms and more


def call(procedure: Own, serial: int, payload: bytes = b"") -> Frame:
    """A call of this program."""
    return Frame(Header(OWN_PROGRAM, VERSION, procedure, FrameType.CALL, serial), payload)


class AskStatus(NamedTuple):
    """Arguments of STATUS."""

    flags: int = 0

    def pack(self) -> bytes:
        return Writer().u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "AskStatus":
        return cls(Reader(payload).u32())


class AskPage(NamedTuple):
    """Arguments of LIST_CLIENTS."""

    after: int
    most: int = LONGEST_PAGE

    def pack(self) -> bytes:
        return Writer().u64(self.after).u32(self.most).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "AskPage":
        reader = Reader(payload)
        return cls(reader.u64(), reader.u32())


class AskDrain(NamedTuple):
    """Arguments of DRAIN."""

    flags: int = 0

    def pack(self) -> bytes:
        return Writer().u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "AskDrain":
        return cls(Reader(payload).u32())


class AskRules(NamedTuple):
    """Arguments of RULES."""

    flags: int = 0

    def pack(self) -> bytes:
        return Writer().u32(self.flags).take()

    @classmethod
    def unpack(cls, payload: bytes) -> "AskRules":
        return cls(Reader(payload).u32())


def pack_number(number: int) -> bytes:
    """The argument of CLOSE_CLIENT."""
    return Writer().u64(number).take()


def unpack_number(payload: bytes) -> int:
    return Reader(payload).u64()


def unpack_nothing(payload: bytes) -> None:
    """The arguments of RELOAD, METRICS and UPGRADE."""
    if payload:
        raise MalformedFrame(f"{len(payload)} bytes where there are no arguments")


def pack_text(text: str) -> bytes:
    """The result of all that return something."""
    return Writer().string(text).take()


def unpack_text(payload: bytes) -> str:
    return Reader(payload).string()
