"""Frames: length word, header, and a buffer that cuts a byte stream into them.

Source: docs/protocol/frames.md, sections 1 to 3. All integers are big-endian; the length word
counts itself; a frame is at least its header.
"""

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from proxyd.wire.xdr import MalformedFrame

LENGTH_SIZE: Final = 4
HEADER_SIZE: Final = 28  # with the length word: the smallest legal frame
MAX_FRAME: Final = 33554436  # 32 MiB behind the length word
MAX_DESCRIPTORS: Final = 32  # of one frame

HEADER: Final = Struct(">IIIiiIi")
_LENGTH: Final = Struct(">I")


class FrameType(IntEnum):
    CALL = 0
    REPLY = 1
    MESSAGE = 2
    STREAM = 3
    CALL_WITH_FDS = 4
    REPLY_WITH_FDS = 5
    STREAM_HOLE = 6


class Status(IntEnum):
    OK = 0
    ERROR = 1
    CONTINUE = 2


class Header(NamedTuple):
    """A frame's header without its length word; every field is as it came, known or not."""

    program: int
    version: int
    procedure: int
    type: int
    serial: int
    status: int = Status.OK

    def replied(self, status: Status) -> "Header":
        """The header of the reply to this call: it echoes the program, version and serial."""
        return Header(
            self.program, self.version, self.procedure, FrameType.REPLY, self.serial, status
        )


class Frame(NamedTuple):
    header: Header
    payload: bytes = b""

    def pack(self) -> bytes:
        """The frame as it goes over the wire."""
        header = self.header
        length = HEADER_SIZE + len(self.payload)
        return (
            HEADER.pack(
                length,
                header.program,
                header.version,
                header.procedure,
                header.type,
                header.serial,
                header.status,
            )
            + self.payload
        )


def check_length(length: int, limit: int = MAX_FRAME) -> None:
    """Raises MalformedFrame unless a frame of this many bytes (length word included) may be."""
    if not HEADER_SIZE <= length <= limit:
        raise MalformedFrame(
            f"a frame length of {length}, allowed are {HEADER_SIZE} to {limit} bytes"
        )


class FrameBuffer:
    """Cuts bytes, however they were split or merged on their way, into frames.

    It holds at most one frame of `limit` bytes plus what its owner fed behind that frame. An
    owner that reads `wanted` bytes at a time never takes a byte (or a descriptor that rides
    on one) behind the frame that it is waiting for.
    """

    __slots__ = ("_held", "limit")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._held = bytearray()
        self.limit = limit

    def feed(self, received: bytes | bytearray | memoryview) -> None:
        self._held += received

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def wanted(self) -> int:
        """Bytes missing until the next step of the present frame: its header, then its end.

        Zero when a whole frame is here. Raises MalformedFrame when its length cannot be, which
        shows as soon as its first word is there.
        """
        held = len(self._held)
        if held < LENGTH_SIZE:
            return HEADER_SIZE - held
        length = self._length()
        if held < HEADER_SIZE:
            return HEADER_SIZE - held
        return max(0, length - held)

    def next_frame(self) -> Frame | None:
        """The next whole frame, or None. Raises MalformedFrame on a length that cannot be."""
        held = len(self._held)
        if held < LENGTH_SIZE:
            return None
        length = self._length()
        if held < length:
            return None
        fields = HEADER.unpack_from(self._held)
        frame = Frame(Header(*fields[1:]), bytes(self._held[HEADER_SIZE:length]))
        del self._held[:length]
        return frame

    def _length(self) -> int:
        length = int(_LENGTH.unpack_from(self._held)[0])
        check_length(length, self.limit)
        return length
