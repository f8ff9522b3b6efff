"""The accept loop of one listener."""

import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

import trio

from proxyd.config.listening import Door
from proxyd.session.admission import Admission

log = logging.getLogger("rpc.netserverservice")

# Out of descriptors, memory or what epoll may watch: the client stays in the backlog until
# something was freed.
_SHORT_OF: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC}
_BACK_OFF_S: Final = 0.5


async def accept_clients(
    listener: socket.socket,
    door: Door,
    admission: Admission,
    start: Callable[[socket.socket], None],
) -> None:
    """Accepts for ever; `start` takes each connection over. The listener is non-blocking."""
    short = False
    while True:
        await admission.room(door.transport)
        try:
            sock = await _next_client(listener, door, admission)
        except OSError as error:
            if error.errno in _SHORT_OF:
                if not short:
                    short = True
                    log.warning(
                        "%s: cannot accept: %s; new clients wait until something is freed",
                        door.name,
                        error.strerror,
                    )
                await trio.sleep(_BACK_OFF_S)
            else:
                # ECONNABORTED and its like: that client is gone, the next one is not.
                log.debug("%s: accept: %s", door.name, error.strerror)
                await trio.lowlevel.checkpoint()
        else:
            if sock is None:
                continue  # somebody has come; there may be no room any more
            if short:
                short = False
                log.warning("%s: accepting again", door.name)
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
