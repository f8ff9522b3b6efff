"""TCP ports, on one or several addresses: opened all, or refused with the reason.

Source: docs/protocol/listeners.md, section 2. Unlike libvirt, an address that somebody else holds
is a refusal even if another one could be had: half of the clients would find the wrong daemon.
"""

import errno
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from proxyd.config.addresses import host_port
from proxyd.config.listeners import NetworkListening
from proxyd.listen.inherited import Inherited
from proxyd.listen.unix import ListenerError
from proxyd.process.sockets import port_holders, port_owner

# A host without IPv6, or an interface that has only one of a name's addresses.
_NOT_HERE: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}
_LAST_PRIVILEGED_PORT: Final = 1023
_WILDCARDS: Final = (None, "", "0.0.0.0", "::")  # noqa: S104 (compared with, not bound)


def try_network_listeners(asked: NetworkListening, is_own: Callable[[int], bool]) -> None:
    """Whether they could be opened, with nobody coming in. Raises ListenerError; may block.

    `is_own` says of a process that has the port whether it is one that would make room.
    """

    def bind(listener: socket.socket, address: tuple[object, ...], _backlog: int) -> None:
        try:
            _bind(listener, address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if not any(map(is_own, port_holders(int(str(address[1]))))):
                raise

    for each in _opened(asked, bind, Inherited()):
        each.close()


def open_network_listeners(
    asked: NetworkListening, inherited: Inherited | None = None
) -> list[socket.socket]:
    """One non-blocking listening socket for each address. Raises ListenerError; may block.

    With those of the process before that have the same addresses.
    """
    return _opened(asked, _listen, inherited or Inherited())


def _opened(
    asked: NetworkListening,
    listen: Callable[[socket.socket, tuple[object, ...], int], None],
    inherited: Inherited,
) -> list[socket.socket]:
    with ExitStack() as undo:
        opened: list[socket.socket] = []
        missing: OSError | None = None
        for family, address in _addresses(asked):
            before = inherited.at(asked.transport.name, family, address)
            try:
                if before is not None:
                    listener = before.sock
                    undo.callback(listener.close)
                    listener.listen(asked.backlog)
                else:
                    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                    undo.callback(listener.close)
                    listen(listener, address, asked.backlog)
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
    _bind(listener, address)
    listener.listen(backlog)


def _bind(listener: socket.socket, address: tuple[object, ...]) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(address)


def _refusal(asked: NetworkListening, address: tuple[object, ...], error: OSError) -> str:
    where = host_port(address)
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
