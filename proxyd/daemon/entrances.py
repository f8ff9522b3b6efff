"""The listening sockets, and how whoever comes in by one of them is met."""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from proxyd.config.listening import (
    Door,
    NetworkListening,
    Transport,
    UnixListening,
    admin_listenings,
    network_listenings,
    sasl_transports,
    unix_listenings,
)
from proxyd.config.settings import Settings
from proxyd.daemon.exits import Exit, StartFailed
from proxyd.daemon.in_force import InForce, Options
from proxyd.daemon.listeners import ListenerError, UnixListenerSpec, open_unix_listener
from proxyd.daemon.loaded import group_id
from proxyd.daemon.network_listeners import open_network_listeners, spelled
from proxyd.daemon.places import Places
from proxyd.endpoint.tcp import tune
from proxyd.session.greeting import Greeting
from proxyd.session.local import LocalGreeting
from proxyd.session.names import NameService
from proxyd.session.proving import Policy, Proof, proving_threads
from proxyd.session.remote import TcpGreeting
from proxyd.wire.programs import AuthMethod

if TYPE_CHECKING:
    from proxyd.auth.offering import Offering
    from proxyd.auth.server_tls import ServerTls
    from proxyd.session.polkit import PolkitAuthority

Entrance = tuple[socket.socket, Door]
Greet = Callable[[socket.socket, Door], Greeting]
_GreetRemote = Callable[[socket.socket, str], Greeting]


def open_entrances(
    settings: Settings, options: Options, given_back: ExitStack
) -> tuple[list[Entrance], list[Entrance]]:
    """Every socket that the settings ask for, listening; nobody is accepted yet.

    Those for clients, and those for virt-admin.

    Raises StartFailed. `given_back` closes them.
    """
    # A port may be somebody else's: that is found out before the first client can connect.
    entrances = [
        entrance
        for asked in network_listenings(settings)
        for entrance in _listen_on_network(asked, given_back)
    ]
    gid = group_id(settings.unix_sock_group)
    directory = os.path.join(
        options.directory, settings.unix_sock_dir or options.places.runtime_dir
    )

    def listening(asked_for: Sequence[UnixListening], gid: int | None) -> list[Entrance]:
        return [(_listen(asked, gid, given_back), asked.door) for asked in asked_for]

    for_clients = unix_listenings(
        settings, privileged=options.places.privileged, directory=directory
    )
    local = listening(for_clients, gid)
    # The group may not administrate: only the daemon's own user is served there.
    admin = listening(admin_listenings(settings, directory=directory), None)
    return local + entrances, admin


def load_tls_for(settings: Settings, places: Places) -> "ServerTls | None":
    """Raises StartFailed. Reads files."""
    if not settings.listen_tls:
        return None
    from proxyd.daemon.tls import load_tls  # noqa: PLC0415 (see the top)

    return load_tls(settings, places)


def load_sasl_for(settings: Settings, places: Places) -> "dict[Transport, Offering]":
    """Raises StartFailed. Reads files."""
    transports = sasl_transports(settings, privileged=places.privileged)
    if not transports:
        return {}
    from proxyd.daemon.sasl import load_offerings  # noqa: PLC0415 (see the top)

    return load_offerings(settings, places, transports)


def _listen_on_network(
    asked: NetworkListening, given_back: ExitStack
) -> list[tuple[socket.socket, Door]]:
    try:
        listeners = open_network_listeners(asked)
    except ListenerError as error:
        raise StartFailed(Exit.NETWORK, str(error)) from error
    for listener in listeners:
        given_back.callback(listener.close)
    return [(each, asked.door(spelled(each.getsockname()))) for each in listeners]


def _listen(asked: UnixListening, gid: int | None, given_back: ExitStack) -> socket.socket:
    spec = UnixListenerSpec(path=asked.path, mode=asked.mode, gid=gid, backlog=asked.backlog)
    try:
        listener = open_unix_listener(spec)
    except ListenerError as error:
        raise StartFailed(Exit.NETWORK, str(error)) from error
    given_back.callback(listener.close)
    return listener.socket


def greeter(in_force: InForce, names: NameService) -> Greet:
    """How whoever comes in by a door is met; what a reload changes holds for the next one."""
    by_network: dict[Transport, _GreetRemote] = {Transport.TCP: TcpGreeting}
    if in_force.tls is not None:
        by_network[Transport.TLS] = _tls_greeter(in_force)

    def greet(sock: socket.socket, door: Door) -> Greeting:
        if door.transport is Transport.UNIX:
            return LocalGreeting(sock, names)
        settings = in_force.settings
        tune(sock, interval_s=settings.keepalive_interval, count=settings.keepalive_count)
        return by_network[door.transport](sock, spelled(sock.getpeername()))

    return greet


def polkit_for(in_force: InForce) -> "PolkitAuthority | None":
    """polkit, where a door asks for it."""
    if all(door.method is not AuthMethod.POLKIT for _, door in in_force.doors):
        return None
    from proxyd.session.polkit import PolkitAuthority  # noqa: PLC0415 (see the top)

    return PolkitAuthority()


def prover(in_force: InForce) -> Callable[[Door], Proof]:
    """What a door that asks for SASL asks of its next client."""
    threads = proving_threads()

    def proof(door: Door) -> Proof:
        settings = in_force.settings
        least_ssf = settings.tcp_min_ssf if door.transport is Transport.TCP else 0
        return Proof(
            offering=in_force.offerings[door.transport],
            policy=Policy(allowed=settings.sasl_allowed_username_list, least_ssf=least_ssf),
            threads=threads,
        )

    return proof


def _tls_greeter(in_force: InForce) -> _GreetRemote:
    from proxyd.session.securing import TlsGreeting, handshake_threads  # noqa: PLC0415

    threads = handshake_threads()

    def greet(sock: socket.socket, address: str) -> Greeting:
        assert in_force.tls is not None
        return TlsGreeting(sock, address, in_force.tls, threads)

    return greet
