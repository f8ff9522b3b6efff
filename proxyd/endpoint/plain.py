"""Endpoints that are a bare socket: TCP, and UNIX, where descriptors may come with the bytes."""

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Final

from proxyd.endpoint.ancillary import (
    bytes_in_front,
    bytes_without,
    has_never_taken_any,
    read_urgent_bytes_in_line,
    refuse_descriptors,
    take_descriptors,
)
from proxyd.endpoint.contract import DESCRIPTOR, NOTHING, HungUp
from proxyd.endpoint.couriers import COURIERS
from proxyd.wire.state import State

_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class PlainEndpoint:
    """A connected stream socket. It is made non-blocking and belongs to the endpoint."""

    __slots__ = ("_fd", "_sock")

    may_splice = True
    carries_descriptors = False
    moves = True
    pending = False
    reads_when_writable = False

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._fd = sock.fileno()

    def fileno(self) -> int:
        return self._fd

    def plain_bytes(self, view: memoryview) -> int:
        """How many bytes a read may take before it meets descriptors, as `read_into` answers."""
        return len(view)

    def receive(self, count: int) -> bytes:
        """Bytes for a layer above that takes them as they come. Raises OSError."""
        return self._sock.recv(count)

    def send(self, content: bytes | bytearray) -> int:
        """Bytes of a layer above; how many of them were taken. Raises OSError."""
        return self._sock.send(content)

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

    def take_descriptors(self) -> None:
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

    def end_write(self) -> None:
        # ENOTCONN: the other side has closed already, so nobody is left to be told.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()

    def state(self) -> State:
        return {"kind": "plain"}

    def go_on(self) -> None:
        """Nothing was taken away."""

    def let_go(self) -> None:
        self._sock.close()


class UnixEndpoint(PlainEndpoint):
    """A UNIX socket. Descriptors come only behind `take_descriptors`, where the kernel refuses them
    till then (ancillary.py). Elsewhere, and behind it, each read takes what is in front of them.

    A look costs 0.9 µs more than a bare read did that had room for them; a read that needs no look
    costs 0.9 µs less (2-core machine, 100,000 calls each).

    `looks` is what held for the same socket in somebody else's hands: it goes on to hold.
    """

    __slots__ = ("_bury", "_looks")

    carries_descriptors = True

    def __init__(
        self,
        sock: socket.socket,
        bury: Callable[[socket.socket], None] = COURIERS.bury,
        *,
        looks: bool | None = None,
    ) -> None:
        super().__init__(sock)
        self._bury = bury
        if looks is not None:
            self._looks = looks
            return
        self._looks = not has_never_taken_any(sock)
        if self._looks:
            refuse_descriptors(sock)  # what is in its queue stays there
            read_urgent_bytes_in_line(sock)

    def plain_bytes(self, view: memoryview) -> int:
        if not self._looks:
            return len(view)
        try:
            count = bytes_in_front(self._sock, view)
        except BlockingIOError:
            return NOTHING
        except OSError as error:
            raise hung_up(error, while_writing=False) from error
        return DESCRIPTOR if count is None else count

    def read_into(self, view: memoryview) -> int:
        try:
            if self._looks:
                count = bytes_in_front(self._sock, view)
                if not count:
                    return DESCRIPTOR if count is None else 0
                view = view[:count]
            return self._sock.recv_into(view)
        except BlockingIOError:
            return NOTHING
        except OSError as error:
            raise hung_up(error, while_writing=False) from error

    def splice_to(self, pipe: int, count: int) -> int:
        if self._looks:
            count = min(count, bytes_without(self._sock))
            if not count:  # the end; or else a read tells what is there
                return 0 if self.plain_bytes(memoryview(bytearray(1))) == 0 else NOTHING
        return super().splice_to(pipe, count)

    def take_descriptors(self) -> None:
        self._looks = True
        read_urgent_bytes_in_line(self._sock)
        take_descriptors(self._sock)

    def close(self) -> None:
        if self._looks:
            self._bury(self._sock)
        else:
            self._sock.close()

    def state(self) -> State:
        return {"kind": "unix", "looks": self._looks}

    def let_go(self) -> None:
        if self._looks:
            COURIERS.let_go(self._sock)
        else:
            self._sock.close()


def hung_up(error: OSError, *, while_writing: bool) -> HungUp:
    return HungUp(os.strerror(error.errno or 0), while_writing=while_writing)
