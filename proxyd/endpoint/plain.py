"""Endpoints that are a bare socket: TCP, and UNIX with descriptors."""

import array
import contextlib
import os
import socket
from collections.abc import Iterable
from typing import Final

from proxyd.endpoint.contract import NOTHING, HungUp
from proxyd.endpoint.disposal import close_refused

# libvirt sends one at a time. There is room for all that a message can bring (SCM_MAX_FD), because
# what does not fit is closed by the kernel in this very thread: see disposal.py.
_MOST_DESCRIPTORS: Final = 253
_ROOM: Final = socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i", [0]).itemsize)
_RECEIVE_FLAGS: Final = socket.MSG_CMSG_CLOEXEC
_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class PlainEndpoint:
    """A connected stream socket. It is made non-blocking and belongs to the endpoint."""

    __slots__ = ("_fd", "_sock", "descriptors")

    may_splice = True
    carries_descriptors = False
    pending = False
    reads_when_writable = False

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._fd = sock.fileno()
        self.descriptors: list[int] = []

    def fileno(self) -> int:
        return self._fd

    def release(self) -> socket.socket:
        """The socket, for an endpoint that takes this one's place."""
        return self._sock

    def read_into(self, view: memoryview) -> int:
        try:
            return self._sock.recv_into(view)
        except BlockingIOError:
            return NOTHING
        except OSError as error:
            raise hung_up(error, while_writing=False) from error

    def write(self, view: memoryview) -> int:
        try:
            return self._sock.send(view)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise hung_up(error, while_writing=True) from error

    def write_descriptor(self, descriptor: int) -> bool:
        raise NotImplementedError("only UNIX sockets carry descriptors")

    def splice_to(self, pipe: int, count: int) -> int:
        try:
            return os.splice(self._fd, pipe, count, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            return NOTHING
        except OSError as error:
            raise hung_up(error, while_writing=False) from error

    def splice_from(self, pipe: int, count: int) -> int:
        try:
            return os.splice(pipe, self._fd, count, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise hung_up(error, while_writing=True) from error

    def drop_descriptors(self) -> None:
        for descriptor in self.descriptors:
            close_refused(descriptor)
        self.descriptors.clear()

    def end_write(self) -> None:
        # ENOTCONN: the other side has closed already, so nobody is left to be told.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.drop_descriptors()
        self._sock.close()


class UnixEndpoint(PlainEndpoint):
    """A UNIX socket: each read may bring a descriptor on its last byte.

    `recv` would let the kernel close such a descriptor silently (reference/wire.md, section
    4), so every read is a `recvmsg`: about 0.5 µs more than `recv` on the design machine.
    """

    __slots__ = ()

    carries_descriptors = True

    def read_into(self, view: memoryview) -> int:
        try:
            got, ancillary, _, _ = self._sock.recvmsg_into((view,), _ROOM, _RECEIVE_FLAGS)
        except BlockingIOError:
            return NOTHING
        except OSError as error:
            raise hung_up(error, while_writing=False) from error
        if ancillary:
            self.descriptors.extend(_descriptors(ancillary))
        return got

    def write_descriptor(self, descriptor: int) -> bool:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        try:
            return self._sock.sendmsg((b"\0",), (rights,)) == 1
        except BlockingIOError:
            return False
        except OSError as error:
            raise hung_up(error, while_writing=True) from error


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> Iterable[int]:
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
            yield from numbers


def hung_up(error: OSError, *, while_writing: bool) -> HungUp:
    return HungUp(os.strerror(error.errno or 0), while_writing=while_writing)
