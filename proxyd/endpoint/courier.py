"""A program of its own: `python -I -S courier.py` moves other people's descriptors for proxyd.

To close a descriptor may take for ever: a file system of its owner's need not answer, and then not
even SIGKILL ends the process that waits. So proxyd never has one; a courier has, and there is one
for each user, so that a user whose files hang holds up nobody else.

Standard input is a socket (SOCK_SEQPACKET). Each message on it is one errand:

    carry   with two sockets: one byte of the first, with the one descriptor that rides on it, goes
            on to the second
    take    with one socket: likewise, but the descriptor goes nowhere
    hold    with sockets that are about to be closed, and in whose queues descriptors may be
    drop    closes those that are held: their owner has closed them as well by then

It answers the first two: "+" when a descriptor has been carried, "-REASON" when it cannot be, and
"." when all is closed and the next one may come. It ends when nobody is there to give it errands,
at once: a close that lingers then lingers for nobody.

Called with `keep` it reads nothing: what is passed on its socket stays there until it is killed,
and is closed by that.
"""

import array
import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Final

_MOST_DESCRIPTORS: Final = 253  # SCM_MAX_FD: what one message can bring
_ROOM: Final = socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i", [0]).itemsize)
_LONGEST_ERRAND: Final = 16
_PR_SET_PDEATHSIG: Final = 1
_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


def main(control: socket.socket, *, keeps: bool) -> None:
    # The thread that waits for us ends with its process; what comes before this shows at `control`.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if keeps:
        control.send(b".")  # ends us if nobody is there any more
        signal.pause()
    held: list[int] = []
    while True:
        errand, sockets = _received(control, socket.MSG_CMSG_CLOEXEC)
        if not errand:
            return
        if errand == b"hold":
            held += sockets
            continue
        if errand == b"drop":
            while held:
                _close(held.pop())
            continue
        # The session's own sockets first: its end must not wait for what comes behind them.
        for each in sockets + _carry(control, *sockets):
            _close(each)
        control.send(b".")


def _carry(control: socket.socket, source: int, destination: int | None = None) -> list[int]:
    """Answers, and returns what is to be closed, for which nobody has to wait."""
    descriptors: list[int] = []
    try:
        with _borrowed(source) as sender:
            content, descriptors = _received(sender, _FLAGS, 1)
        if len(content) != 1 or len(descriptors) != 1:
            said = f"-{len(descriptors)} descriptors where one was announced"
        else:
            said = "+"
            if destination is not None:
                with _borrowed(destination) as receiver:
                    socket.send_fds(receiver, [b"\0"], descriptors)
    except OSError as error:
        said = f"-{os.strerror(error.errno or 0)}"
    control.send(said.encode())
    return descriptors


def _close(descriptor: int) -> None:
    with suppress(OSError):  # what its file system has to say: it is closed all the same
        os.close(descriptor)


class _borrowed:  # noqa: N801 (used like a function)
    """A socket object on a descriptor that stays open behind the block."""

    def __init__(self, descriptor: int) -> None:
        self._sock = socket.socket(fileno=descriptor)

    def __enter__(self) -> socket.socket:
        return self._sock

    def __exit__(self, *exception: object) -> None:
        self._sock.detach()


def _received(
    sock: socket.socket, flags: int, size: int = _LONGEST_ERRAND
) -> tuple[bytes, list[int]]:
    content, ancillary, _, _ = sock.recvmsg(size, _ROOM, flags)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return content, list(descriptors)


if __name__ == "__main__":
    main(socket.socket(fileno=sys.stdin.fileno()), keeps=sys.argv[1:] == ["keep"])
