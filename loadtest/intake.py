"""Cuts what arrives during a transfer into frames; of the stream's data only the size is kept."""

from proxyd.wire.frame import (
    HEADER,
    HEADER_SIZE,
    LENGTH_SIZE,
    Frame,
    FrameBuffer,
    FrameType,
    Status,
    check_length,
)
from proxyd.wire.programs import VERSION, Program


class Intake:
    """One stream's. Cheap for data: a few steps per packet of 256 KiB, however it is cut."""

    def __init__(self, procedure: int, serial: int) -> None:
        self.moved = 0  # bytes of data
        self._of_data = HEADER.pack(
            0, Program.REMOTE, VERSION, procedure, FrameType.STREAM, serial, Status.CONTINUE
        )[LENGTH_SIZE:]
        self._head = bytearray()  # of the next frame, as far as it has come
        self._left = 0  # bytes of the present frame that have not come
        self._others = FrameBuffer()  # holds the present frame unless it is data

    def take(self, received: memoryview) -> list[Frame]:
        """The frames that are whole now, without data; the packet that ends the data is one.

        Raises MalformedFrame.
        """
        found = []
        while received:
            if self._left:
                step = min(self._left, len(received))
                self._pass(received[:step])
            else:
                step = HEADER_SIZE - len(self._head)
                self._head += received[:step]
                if len(self._head) == HEADER_SIZE:
                    self._enter()
            received = received[step:]
            if not self._left and (frame := self._others.next_frame()) is not None:
                found.append(frame)
        return found

    def _enter(self) -> None:
        """A frame whose header is here."""
        length = int(HEADER.unpack_from(self._head)[0])
        check_length(length)
        self._left = length - HEADER_SIZE
        if not self._left or self._head[LENGTH_SIZE:] != self._of_data:
            self._others.feed(self._head)
        self._head.clear()

    def _pass(self, part: memoryview) -> None:
        self._left -= len(part)
        if self._others.held:
            self._others.feed(part)
        else:
            self.moved += len(part)
