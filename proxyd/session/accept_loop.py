"""The accept loop of one listener.

An error of accept is one of three kinds. It may be about the one connection that was taken from the
backlog with it: the next is not concerned. It may be a shortage, which leaves the connection where
it is. Anything else, and an endless row of the first kind, may be there for ever, say because the
listener was shut down: it is told once and tried again at growing intervals.
"""

import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Final

import trio

from proxyd.admission.admission import Admission
from proxyd.config.listeners import Door

log = logging.getLogger("rpc.netserverservice")

# Out of descriptors, memory or what epoll may watch: the client stays in the backlog until
# something was freed.
_SHORT_OF: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC}
_BACK_OFF_S: Final = 0.5

# Of that connection, says accept(2), or of what a firewall thinks of it.
_THAT_CLIENT: Final = {
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EPERM,
    errno.EPROTO,
    errno.ENOPROTOOPT,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENONET,
    errno.ETIMEDOUT,
    errno.EINTR,
}
_MOST_IN_A_ROW: Final = 100  # a backlog full of them
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 5.0


class _Trouble:
    """What keeps one listener from accepting: told when it begins, and when it is over."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = 0  # the errno
        self._in_a_row = 0
        self._pause_s = _FIRST_PAUSE_S

    async def met(self, error: OSError) -> None:
        """Returns when another try is worth it; others have had their turn by then."""
        number, self._in_a_row = error.errno or errno.EIO, self._in_a_row + 1
        if number in _SHORT_OF:
            self._tell(number, logging.WARNING, "new clients wait until something is freed")
            await trio.sleep(_BACK_OFF_S)
        elif number in _THAT_CLIENT and self._in_a_row <= _MOST_IN_A_ROW:
            log.debug("%s: accept: %s", self._name, os.strerror(number))
            await trio.lowlevel.checkpoint()
        else:
            await self._lasting(number)

    async def woken(self) -> None:
        """Somebody is said to wait: so is said for ever of a UNIX listener that was shut down."""
        self._in_a_row += 1
        if self._in_a_row > _MOST_IN_A_ROW:
            await self._lasting(errno.EAGAIN)

    def over(self) -> None:
        """A client was accepted."""
        if self._told:
            log.warning("%s: accepting again", self._name)
        self._told = self._in_a_row = 0
        self._pause_s = _FIRST_PAUSE_S

    async def _lasting(self, number: int) -> None:
        remedy = "it is tried again; if that does not help soon, restart proxyd"
        self._tell(number, logging.ERROR, remedy)
        await trio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _tell(self, number: int, level: int, what_next: str) -> None:
        if number != self._told:
            self._told = number
            log.log(level, "%s: cannot accept: %s; %s", self._name, os.strerror(number), what_next)


async def accept_clients(
    listener: socket.socket,
    door: Door,
    admission: Admission,
    start: Callable[[socket.socket], None],
) -> None:
    """Accepts for ever; `start` takes each connection over. The listener is non-blocking."""
    trouble = _Trouble(door.name)
    while True:
        await admission.room(door.transport)
        try:
            sock = await _next_client(listener, door, admission)
        except OSError as error:
            await trouble.met(error)
        else:
            if sock is None:
                await trouble.woken()
                continue  # somebody has come; there may be no room any more
            trouble.over()
            start(sock)
            # A burst of connections must not keep the loop from those that are here.
            await trio.lowlevel.checkpoint()


async def _next_client(
    listener: socket.socket, door: Door, admission: Admission
) -> socket.socket | None:
    """The client that is there, or None when there was none and one has come. Raises OSError."""
    try:
        sock, _ = listener.accept()
    except BlockingIOError:
        admission.nobody_waits(door.transport)
        await trio.lowlevel.wait_readable(listener)
        return None
    return sock
