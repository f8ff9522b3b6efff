"""TLS from outside: which records come over the wire, and which frames lie in each of them.

The client's TLS works on memory, and gets one record at a time; so what it gives out then is what
that record holds, whichever cipher it is.
"""

import itertools
import socket
import ssl
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from proxyd.wire.frame import LENGTH_SIZE, Frame, FrameBuffer

LET_IN: Final = b"\x01"  # from libvirt's servers, when the handshake has shown who it is

_RECORD_HEADER: Final = 5
_PLENTY: Final = 1 << 18
_LONGEST_PLAIN: Final = 16384


@dataclass
class RecordClient:
    """A client on a connected socket, blocking. `records` are the contents of those that had any.

    Contents are application data; handshake messages and alerts are none. `frames` are those that
    came whole.
    """

    sock: socket.socket
    context: ssl.SSLContext
    records: list[bytes] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self.context.wrap_bio(self._incoming, self._outgoing)
        self._raw = bytearray()
        self._buffer = FrameBuffer()
        self.ended = False

    def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._feed_record():
                    raise ConnectionResetError("ended in the handshake") from None
            else:
                self._flush()
                return

    def send(self, plain: bytes) -> None:
        self._tls.write(plain)
        self._flush()

    def let_in(self) -> None:
        """Takes the byte in front of the first frame."""
        while not self.records:
            self._take_record()
        assert self.records.pop() == LET_IN

    def receive(self, frames: int) -> list[Frame]:
        """Goes on until so many more frames are whole, or nothing follows; returns these."""
        begun = len(self.frames)
        while len(self.frames) < begun + frames and not self.ended:
            if self._take_record():
                self._buffer.feed(self.records[-1])
                self.frames += iter(self._buffer.next_frame, None)
        return self.frames[begun:]

    def _take_record(self) -> int:
        if not self._feed_record():
            self.ended = True
            return 0
        try:
            plain = self._tls.read(_LONGEST_PLAIN + 1)
        except ssl.SSLWantReadError:
            return 0  # no application data
        assert not self._tls.pending(), "the whole record was asked for"
        if plain:
            self.records.append(plain)
        else:
            self.ended = True  # a close_notify
        return len(plain)

    def _feed_record(self) -> bool:
        """Gives TLS the next record, whole; False at the end."""
        while not (size := self._record_size()):
            got = self.sock.recv(_PLENTY)
            if not got:
                return False
            self._raw += got
        self._incoming.write(self._raw[:size])
        del self._raw[:size]
        return True

    def _record_size(self) -> int:
        """Of the first one, 0 if it is not there whole."""
        size = _RECORD_HEADER + int.from_bytes(self._raw[3:_RECORD_HEADER], "big")
        return size if len(self._raw) >= max(size, _RECORD_HEADER) else 0

    def _flush(self) -> None:
        if out := self._outgoing.read():
            self.sock.sendall(out)


def frames_in(records: Sequence[bytes]) -> list[range]:
    """For each record the numbers of the frames that it holds bytes of; the first frame is 0."""
    stream = b"".join(records)
    ends, at = [], 0
    while at + LENGTH_SIZE <= len(stream):
        at += int.from_bytes(stream[at : at + LENGTH_SIZE], "big")
        ends.append(at)
    bounds = itertools.accumulate(map(len, records), initial=0)
    return [
        range(bisect_right(ends, start), bisect_right(ends, end - 1) + 1)
        for start, end in itertools.pairwise(bounds)
    ]


def check_records(records: Sequence[bytes], frames: int | None = None) -> None:
    """Fails if one of the records holds bytes of two frames, or there are not so many frames."""
    inside = frames_in(records)
    shared = {number: list(each) for number, each in enumerate(inside) if len(each) > 1}
    assert not shared, f"records that hold bytes of several frames: {shared}"
    assert frames is None or len({each[0] for each in inside}) == frames
