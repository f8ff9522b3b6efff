"""Frames out of a TLS connection, taken as libvirt's client takes them, and nothing else taken.

It reads 4 bytes, then the rest of the frame, and waits for the next frame by `poll` on the socket
alone: it never asks TLS whether decrypted bytes are left (docs/protocol/tls.md, section 3). A
record that holds the end of one frame and the beginning of another therefore leaves that other one
inside TLS until something else comes. So after each whole frame nothing may be left there; if
something is, the reader says which frames share a record and which bytes of them.

OpenSSL reads no further than the record that it needs, as GnuTLS does: without read-ahead, which
nobody here switches on, it takes 5 bytes of a record's header and then that record. What is not
decrypted is still in the socket and poll tells of it.
"""

import select
import ssl
import time
from typing import Final

from OpenSSL import SSL

from proxyd.wire.frame import (
    HEADER,
    HEADER_SIZE,
    LENGTH_SIZE,
    MAX_FRAME,
    Frame,
    FrameType,
    Header,
)

Connection = ssl.SSLSocket | SSL.Connection

_WAITS: Final = (ssl.SSLWantReadError, SSL.WantReadError, BlockingIOError)
_CLOSED: Final = -1  # SysCallError without an errno
_LONGEST_RECORD: Final = 16384


class SharedRecord(AssertionError):
    """A record holds bytes of two frames; libvirt's client would not see those of the second."""


class NoFrame(AssertionError):
    """What came is no frame."""


class LibvirtReader:
    """Reads frames from `connection`, whose handshake is done and whose first byte is taken.

    `frames` and `taken` count whole frames and their bytes, `ended` says that nothing follows,
    `held` are the bytes of the frame that is not whole.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.held = bytearray()
        self.frames = 0
        self.taken = 0
        self.ended = False
        self.reset = False
        self._poll = select.poll()
        self._poll.register(connection.fileno(), select.POLLIN)

    def take(self, deadline_s: float = 0) -> Frame | None:
        """The next frame; None at the end, or when the socket has nothing until the deadline.

        What is inside TLS alone is never found: nor does libvirt find it. A connection that blocks
        waits for the rest of a frame as long as its own timeout says. Raises SharedRecord, NoFrame.
        """
        end = time.monotonic() + deadline_s
        while not self.ended and self._readable(end):
            if (wire := self._take_what_is_there()) is not None:
                return self._whole(wire)
        return None

    def _readable(self, end: float) -> bool:
        """Waits on the socket, and on nothing else."""
        return bool(self._poll.poll(max(0.0, end - time.monotonic()) * 1000))

    def _take_what_is_there(self) -> bytes | None:
        """Reads until a frame is whole, or until the socket has to become readable again."""
        while (missing := self._missing()) > 0:
            try:
                got = self._read(missing)
            except _WAITS:
                return None
            if not got:
                self.ended = True
                return None
            self.held += got
        wire = bytes(self.held)
        self.held.clear()
        return wire

    def _missing(self) -> int:
        held = len(self.held)
        if held < LENGTH_SIZE:
            return LENGTH_SIZE - held
        length = int.from_bytes(self.held[:LENGTH_SIZE], "big")
        if not HEADER_SIZE <= length <= MAX_FRAME:
            raise NoFrame(f"frame {self.frames} has a length of {length}")
        return length - held

    def _read(self, count: int) -> bytes:
        try:
            return self.connection.recv(count)
        except (SSL.ZeroReturnError, ssl.SSLEOFError):
            return b""
        except SSL.SysCallError as error:
            if error.args[0] != _CLOSED:
                self.reset = True
            return b""
        except ConnectionResetError:
            self.reset = True
            return b""

    def _whole(self, wire: bytes) -> Frame:
        if self.connection.pending():
            left = self.connection.recv(_LONGEST_RECORD)
            raise SharedRecord(
                f"the record that ends frame {self.frames}, {described(wire)}, also holds"
                f" {len(left)} bytes of what follows: {described(left)}"
            )
        self.frames += 1
        self.taken += len(wire)
        return Frame(Header(*HEADER.unpack_from(wire)[1:]), wire[HEADER_SIZE:])


def described(wire: bytes) -> str:
    """What begins with these bytes, for a failure's message."""
    if len(wire) < HEADER_SIZE:
        return f"a header's first {len(wire)} bytes ({wire.hex()})"
    length, program, _, procedure, kind, serial, status = HEADER.unpack_from(wire)
    name = FrameType(kind).name if kind in set(FrameType) else f"type {kind}"
    return (
        f"a {name} of {length} bytes (program {program:#x}, procedure {procedure},"
        f" serial {serial}, status {status})"
    )
