"""TCP ports, on one or several addresses: opened all, or refused with the reason.

Source: reference/handshake.md, section 1. Unlike libvirt, an address that somebody else holds is
a refusal even if another one could be had: half of the clients would find the wrong daemon.
"""

import errno
import os
import socket
from contextlib import ExitStack
from typing import Final

from proxyd.config.listening import NetworkListening
from proxyd.daemon.listeners import ListenerError
from proxyd.daemon.owner import port_owner

# A host without IPv6, or an interface that has only one of a name's addresses.
_NOT_HERE: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}
_LAST_PRIVILEGED_PORT: Final = 1023
_WILDCARDS: Final = (None, "", "0.0.0.0", "::")  # noqa: S104 (compared with, not bound)


def open_network_listeners(asked: NetworkListening) -> list[socket.socket]:
    """One non-blocking listening socket for each address. Raises ListenerError; may block."""
    with ExitStack() as undo:
        opened: list[socket.socket] = []
        missing: OSError | None = None
        for family, address in _addresses(asked):
            try:
                listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                undo.callback(listener.close)
                _listen(listener, address, asked.backlog)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise ListenerError(_refusal(asked, address, error)) from error
                missing = error
            else:
                opened.append(listener)
        if not opened:
            assert missing is not None
            raise ListenerError(
                f"cannot listen for {asked.name} clients: {asked.host or 'no address'} is not one"
                f" of this host's addresses ({missing.strerror}); set listen_addr to one that"
                " `ip address` shows, or leave it out for all of them"
            )
        undo.pop_all()
        return opened


def spelled(address: tuple[object, ...]) -> str:
    """HOST:PORT of a socket's address, as it is written in a URI."""
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _addresses(asked: NetworkListening) -> list[tuple[int, tuple[object, ...]]]:
    """Every address once, in the resolver's order."""
    # An address of a family that no interface has is left out, but only where one was named.
    named = asked.host not in _WILDCARDS
    flags = socket.AI_PASSIVE | (socket.AI_ADDRCONFIG if named else 0)
    for each in (flags, socket.AI_PASSIVE):  # a host with a loopback interface alone has none
        try:
            found = socket.getaddrinfo(
                asked.host or None, asked.port, type=socket.SOCK_STREAM, flags=each
            )
        except socket.gaierror as error:
            reason = error
        else:
            return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    raise ListenerError(
        f"cannot listen for {asked.name} clients: no address for listen_addr"
        f' "{asked.host or ""}" and {asked.key} "{asked.port}": {reason.strerror}'
    ) from reason


def _listen(listener: socket.socket, address: tuple[object, ...], backlog: int) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(address)
    listener.listen(backlog)


def _refusal(asked: NetworkListening, address: tuple[object, ...], error: OSError) -> str:
    where = spelled(address)
    if error.errno == errno.EADDRINUSE:
        owner = port_owner(int(str(address[1])))
        by = f" by {owner}" if owner.pid else ""
        return (
            f"{where} is in use{by}: stop that first (for libvirt's own daemons: systemctl stop"
            f" libvirtd-{asked.name}.socket virtproxyd-{asked.name}.socket), or choose another"
            f" port ({asked.key}) or address (listen_addr)"
        )
    if error.errno == errno.EACCES and int(str(address[1])) <= _LAST_PRIVILEGED_PORT:
        return (
            f"cannot listen on {where}: ports up to {_LAST_PRIVILEGED_PORT} are root's; choose"
            f" another {asked.key}"
        )
    said = os.strerror(error.errno) if error.errno else str(error)
    return f"cannot listen on {where}: {said}; see listen_addr and {asked.key}"
