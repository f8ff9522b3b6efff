"""Listening sockets of the process that was this daemon before: claimed by their address.

Whoever waits in their queues waits on. Who claims one closes it.
"""

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

_ANY_PORT: Final = 0


@dataclass(slots=True)
class Offered:
    """`service` is what systemd calls it, `transport` what it is for where this daemon made it,
    `file` the device and the inode of its path."""

    sock: socket.socket
    transport: str
    service: str = ""
    file: tuple[int, int] | None = None


class Inherited:
    """Those that are left. Of a daemon that was started by itself there are none."""

    def __init__(self, offered: Iterable[Offered] = ()) -> None:
        self._offered = list(offered)

    def of_services(self) -> list[Offered]:
        """Those that systemd made. They are claimed by that."""
        found = [each for each in self._offered if each.service]
        self._offered = [each for each in self._offered if not each.service]
        return found

    def at(self, transport: str, family: int, address: Any) -> Offered | None:
        """The one with this address, if there is one."""
        for each in self._offered:
            if each.transport == transport and each.sock.family == family:
                bound = each.sock.getsockname()
                if _names(bound, address):
                    self._offered.remove(each)
                    return each
        return None

    def close(self) -> None:
        """Nobody claims the rest."""
        while self._offered:
            self._offered.pop().sock.close()


def _names(bound: Any, asked: Any) -> bool:
    """Whether an address that is asked for is the one that a socket is bound to."""
    if isinstance(asked, bytes):
        return os.fsencode(bound) == asked
    host, port, *rest = asked
    if port == _ANY_PORT:
        return bool(host == bound[0])
    return bool([host, port, *rest] == list(bound))
