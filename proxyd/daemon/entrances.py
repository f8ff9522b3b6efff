"""The listening sockets, what clients prove themselves by there, and how they are met."""

import functools
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from proxyd.config.addresses import host_port
from proxyd.config.agreement import clashes_of
from proxyd.config.kinds import When
from proxyd.config.listeners import (
    Door,
    UnixListening,
    admin_listenings,
    network_listening,
    sasl_transports,
    unix_listenings,
)
from proxyd.config.settings import SPECS, Settings
from proxyd.config.transports import BY_NETWORK, Transport
from proxyd.daemon.in_force import Current, InForce, Options
from proxyd.daemon.load_config import group_id
from proxyd.daemon.places import Places
from proxyd.daemon.ways import Part, Trouble
from proxyd.endpoint.tcp import tune
from proxyd.listen.inherited import Inherited
from proxyd.listen.listener import Listener
from proxyd.listen.network import open_network_listeners
from proxyd.listen.unix import (
    ListenerError,
    UnixListener,
    UnixListenerSpec,
    open_unix_listener,
)
from proxyd.peer.names import NameService
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.session.entrance import Entrance, Greet
from proxyd.session.greeting import Greeting
from proxyd.session.sasl_exchange import Policy, Proof, proving_threads
from proxyd.session.tcp_greeting import TcpGreeting
from proxyd.session.unix_greeting import UnixGreeting
from proxyd.wire.programs import AuthMethod

if TYPE_CHECKING:
    from proxyd.polkit.authority import PolkitAuthority
    from proxyd.sasl.mechanisms import Offering
    from proxyd.tls.server_context import ServerTls

_Made = TypeVar("_Made")


class Opened(NamedTuple):
    """UNIX sockets for clients, those for virt-admin, and the files of all of them."""

    for_clients: list[Listener]
    for_admins: list[Listener]
    files: list[UnixListener]


def open_listeners(
    settings: Settings, options: Options, given_back: ExitStack, inherited: Inherited
) -> Opened:
    """The UNIX sockets that the settings ask for, listening; nobody is accepted yet.

    Raises StartFailed. `given_back` closes them.
    """
    files: list[UnixListener] = []
    gid = group_id(settings.unix_sock_group)
    directory = socket_directory(settings, options)

    def listening(asked_for: Sequence[UnixListening], gid: int | None) -> list[Listener]:
        found = []
        for asked in asked_for:
            files.append(_listen(asked, gid, given_back, inherited))
            found.append(Listener(files[-1].socket, asked.door))
        return found

    for_clients = unix_listenings(
        settings, privileged=options.places.privileged, directory=directory
    )
    local = listening(for_clients, gid)
    # The group may not administrate: only the daemon's own user is served there.
    admins = listening(admin_listenings(settings, directory=directory), None)
    return Opened(local, admins, files)


def socket_directory(settings: Settings, options: Options) -> str:
    """Where the UNIX sockets lie."""
    return os.path.join(options.directory, settings.unix_sock_dir or options.places.runtime_dir)


def open_port(
    settings: Settings, transport: Transport, inherited: Inherited | None = None
) -> list[Listener]:
    """The sockets for clients who come by this, if the settings ask for it, listening.

    Raises StartFailed. Whoever calls closes them. May block.
    """
    asked = network_listening(settings, transport)
    if asked is None:
        return []
    _demand_no_clash(settings, transport, When.START)
    try:
        opened = open_network_listeners(asked, inherited)
    except ListenerError as error:
        raise StartFailed(Exit.NETWORK, str(error), key=asked.key) from error
    return [Listener(each, asked.door(host_port(each.getsockname()))) for each in opened]


def load_tls_for(settings: Settings, places: Places) -> "ServerTls | None":
    """Raises StartFailed. Reads files."""
    if not settings.listen_tls:
        return None
    _demand_no_clash(settings, Transport.TLS, When.RELOAD)
    try:
        from proxyd.daemon.load_tls import load_tls  # noqa: PLC0415 (OpenSSL takes memory)
    except ImportError as error:
        raise StartFailed(Exit.NETWORK, f"listen_tls = 1: {error}", key="listen_tls") from error
    return load_tls(settings, places)


def load_sasl_for(settings: Settings, places: Places, transport: Transport, key: str) -> "Offering":
    """What clients of this transport prove themselves with, where a setting asks for SASL.

    Raises StartFailed. Reads files.
    """
    from proxyd.daemon.load_sasl import load_offering  # noqa: PLC0415 (Kerberos takes memory)

    return load_offering(settings, places, transport, key)


def _demand_no_clash(settings: Settings, transport: Transport, when: When) -> None:
    """Of the settings that take effect then: what is built into sockets, or what is not."""
    for clash in clashes_of(settings, transport):
        if SPECS[clash.key].effect.when is when:
            raise StartFailed(
                Exit.NETWORK,
                f"cannot listen for {transport.name} clients: expected {clash.expected}",
                key=clash.key,
            )


def load_offerings(
    settings: Settings, places: Places
) -> "tuple[dict[Transport, Offering], list[Trouble]]":
    """What is offered by SASL wherever a setting asks for it, or why it cannot be. Reads files."""
    offerings: dict[Transport, Offering] = {}
    troubles: list[Trouble] = []
    for transport, key in sasl_transports(settings, privileged=places.privileged).items():
        load = functools.partial(load_sasl_for, settings, places, transport, key)
        found = attempted(load, transport, Part.SASL)
        if isinstance(found, Trouble):
            troubles.append(found)
        else:
            offerings[transport] = found
    return offerings, troubles


def open_ports(
    settings: Settings,
    given_back: ExitStack,
    transports: Iterable[Transport] = BY_NETWORK,
    inherited: Inherited | None = None,
) -> tuple[list[Listener], list[Trouble]]:
    """The ports that the settings ask for, and what keeps others from being opened. May block.

    `given_back` closes them.
    """
    listeners: list[Listener] = []
    troubles: list[Trouble] = []
    for transport in transports:
        open_it = functools.partial(open_port, settings, transport, inherited)
        opened = attempted(open_it, transport, Part.PORT)
        if isinstance(opened, Trouble):
            troubles.append(opened)
            continue
        for each in opened:
            given_back.callback(each.sock.close)
        listeners += opened
    return listeners, troubles


def attempted(act: Callable[[], _Made], transport: Transport, part: Part) -> "_Made | Trouble":
    """What `act` returns, or what it was refused for by StartFailed."""
    try:
        return act()
    except StartFailed as error:
        return Trouble(
            transport=transport, part=part, reason=str(error), key=error.key, since=time.time()
        )


def _listen(
    asked: UnixListening, gid: int | None, given_back: ExitStack, inherited: Inherited
) -> UnixListener:
    spec = UnixListenerSpec(path=asked.path, mode=asked.mode, gid=gid, backlog=asked.backlog)
    try:
        listener = open_unix_listener(spec, inherited)
    except ListenerError as error:
        raise StartFailed(Exit.NETWORK, str(error)) from error
    given_back.callback(listener.close)
    return listener


class Entrances:
    """Makes of a listener where clients come in; what a reload changes holds for the next one."""

    def __init__(self, current: Current, names: NameService) -> None:
        self._current = current
        self._names = names
        self._greets: dict[Transport, Greet] = {}

    def at(self, listener: Listener) -> Entrance:
        sock, door = listener
        if self._current.trouble_of(door) is None:
            self._greet_of(door.transport)  # it may take a moment, before anybody waits
        return Entrance(sock, door, functools.partial(self._greet, door.transport))

    def _greet(self, transport: Transport, client: socket.socket) -> Greeting:
        return self._greet_of(transport)(client)

    def _greet_of(self, transport: Transport) -> Greet:
        if transport not in self._greets:
            self._greets[transport] = _GREETS[transport](self._current, self._names)
        return self._greets[transport]


def _greet_by_unix(_: Current, names: NameService) -> Greet:
    return lambda sock: UnixGreeting(sock, names)


def _greet_by_tcp(current: Current, _: NameService) -> Greet:
    return lambda sock: TcpGreeting(sock, _tuned(sock, current.now.settings))


def _greet_by_tls(current: Current, _: NameService) -> Greet:
    from proxyd.session.tls_greeting import TlsGreeting, handshake_threads  # noqa: PLC0415

    threads = handshake_threads()

    def greet(sock: socket.socket) -> Greeting:
        now = current.now
        assert now.tls is not None
        return TlsGreeting(sock, _tuned(sock, now.settings), now.tls, threads)

    return greet


_GREETS: Final = {
    Transport.UNIX: _greet_by_unix,
    Transport.TCP: _greet_by_tcp,
    Transport.TLS: _greet_by_tls,
}


def _tuned(sock: socket.socket, settings: Settings) -> str:
    """The address of a client of the network, whose connection has keepalive from now on."""
    tune(sock, interval_s=settings.keepalive_interval, count=settings.keepalive_count)
    return host_port(sock.getpeername())


def polkit_for(in_force: InForce) -> "PolkitAuthority | None":
    """polkit, where a door asks for it."""
    if all(door.method is not AuthMethod.POLKIT for _, door in in_force.listeners):
        return None
    from proxyd.polkit.authority import PolkitAuthority  # noqa: PLC0415 (D-Bus takes memory)

    return PolkitAuthority()


def prover(current: Current) -> Callable[[Door], Proof]:
    """What a door that asks for SASL asks of its next client."""
    threads = proving_threads()

    def proof(door: Door) -> Proof:
        settings = current.now.settings
        least_ssf = 0 if door.transport.traits.is_private else settings.tcp_min_ssf
        return Proof(
            offering=current.now.offerings[door.transport],
            policy=Policy(allowed=settings.sasl_allowed_username_list, least_ssf=least_ssf),
            threads=threads,
        )

    return proof
