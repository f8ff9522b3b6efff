"""Where the pages are served: one listening socket, of a port or of a path."""

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxyd.config.addresses import host_port
from proxyd.listen.inherited import Inherited
from proxyd.listen.unix import UnixListener, UnixListenerSpec, open_unix_listener

_BACKLOG: Final = 64
_MODE: Final = 0o660


@dataclass(frozen=True, slots=True)
class MetricsAddress:
    """`path` of a UNIX socket, or `host` and `port`."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "MetricsAddress":
        """Of "/PATH", "ADDRESS:PORT" or "[ADDRESS]:PORT", which config/checks.py has let pass."""
        if text.startswith("/"):
            return cls(path=text)
        host, _, port = text.rpartition(":")
        host = "127.0.0.1" if host == "localhost" else host.strip("[]")
        return cls(host=host, port=int(port))

    @property
    def is_local(self) -> bool:
        """Whether this host alone can reach it."""
        return bool(self.path) or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return self.path or host_port((self.host, self.port))


def open_metrics_listener(
    address: MetricsAddress, group: Callable[[], int | None], inherited: Inherited | None = None
) -> tuple[socket.socket, UnixListener | None]:
    """A non-blocking listening socket, and the one of a path, with its file.

    Raises ListenerError, OSError, and what `group` raises. May block. The group of the clients'
    sockets may read metrics as well.
    """
    if address.path:
        spec = UnixListenerSpec(path=address.path, mode=_MODE, gid=group(), backlog=_BACKLOG)
        listener = open_unix_listener(spec, inherited)
        listener.own()  # whoever opens it is the daemon by then
        return listener.socket, listener
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    asked = (address.host, address.port, *((0, 0) if family == socket.AF_INET6 else ()))
    before = inherited.at("METRICS", family, asked) if inherited is not None else None
    if before is not None:
        return before.sock, None
    opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address.host, address.port))
        opened.listen(_BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened, None
