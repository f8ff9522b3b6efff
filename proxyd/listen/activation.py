"""Listening sockets that systemd made and passed in (docs/protocol/systemd.md, section 1).

When there are any, they are what is served, and no other is opened: a service whose socket was not
passed in does not exist, whatever the settings say. Each is recognised by its name, which is its
unit's unless FileDescriptorName= gives another, and failing that by its address. libvirt knows
names alone, and starts as if nothing had been passed when they are missing.

They are systemd's as well, which goes on listening with its copies. So at the end ours are closed,
and nothing else: the file stays, and shutdown() is never called, since that would end the listening
for everybody. Whoever connects from then on waits in the backlog, which makes systemd start the
next daemon.
"""

import logging
import os
import socket
from collections.abc import Collection, Iterable, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from proxyd.config.addresses import ADMIN_SOCKETS, LEGACY, LEGACY_READONLY, host_port
from proxyd.config.listeners import (
    NetworkListening,
    UnixListening,
    admin_listenings,
    network_listening,
    unix_listenings,
)
from proxyd.config.settings import SPECS, Settings
from proxyd.config.transports import BY_NETWORK
from proxyd.endpoint.ancillary import refuse_descriptors
from proxyd.listen.listener import Listener
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.process.fdstore import MOST_KEPT, PREFIX

FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
_MOST_SOCKETS: Final = 64  # five services, each on a few addresses
_MOST_PASSED: Final = _MOST_SOCKETS + MOST_KEPT
_MOST_DIGITS: Final = 10
_LONGEST_NAME: Final = 255  # systemd's own limit for FileDescriptorName=
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_NETWORK: Final = {socket.AF_INET, socket.AF_INET6}

log = logging.getLogger("rpc.netserverservice")


class Service(StrEnum):
    """What a socket is for; the value is the name of its unit."""

    FULL = "virtproxyd.socket"
    READONLY = "virtproxyd-ro.socket"
    ADMIN = "virtproxyd-admin.socket"
    TCP = "virtproxyd-tcp.socket"
    TLS = "virtproxyd-tls.socket"

    @property
    def over_network(self) -> bool:
        return self in _TRANSPORTS


# The last part of a UNIX socket's path. The last is what proxyd calls its admin socket where the
# other name is a daemon's behind it.
_BY_FILE: Final = {
    LEGACY: Service.FULL,
    LEGACY_READONLY: Service.READONLY,
    **dict.fromkeys(ADMIN_SOCKETS, Service.ADMIN),
}
_TRANSPORTS: Final = {Service(each.traits.unit): each for each in BY_NETWORK}
# Settings with a warning of their own, and those by which a socket without a name is recognised.
_SPOKEN_OF: Final = {"unix_sock_group"} | {
    key for each in BY_NETWORK for key in (each.traits.listen, each.traits.port)
}
_FILES: Final = {Service.FULL: LEGACY, Service.READONLY: LEGACY_READONLY}


@dataclass(frozen=True, slots=True)
class Passed:
    """A socket as it came: listening, of a family that can be served. `name` may be empty."""

    listener: socket.socket
    name: str

    @property
    def address(self) -> str:
        """As a person would write it."""
        address = self.listener.getsockname()
        if self.listener.family in _NETWORK:
            return host_port(address)
        # Abstract ones are bytes that begin with a NUL; libvirt pads them with more.
        return os.fsdecode(address).rstrip("\0").replace("\0", "@")

    def __str__(self) -> str:
        named = f'"{self.name}"' if self.name else "without a name"
        return f"the socket {named} at {self.address or 'no address'}"


@dataclass(frozen=True, slots=True)
class Recognised:
    """A socket, and what it is for."""

    listener: socket.socket
    service: Service


def take_passed(
    environ: MutableMapping[str, str],
    given_back: ExitStack,
    *,
    pid: int,
    first: int = FIRST_FD,
    kept: list[int] | None = None,
) -> list[Passed]:
    """The sockets that were passed to the process `pid`; none when it was not activated.

    To be called once, before there is a second thread or a fork: the variables are removed from
    `environ`, and the sockets made such that no child inherits them. Raises StartFailed for what
    cannot be served. `given_back` closes them.

    What the process before has left with systemd (process/fdstore.py) is put into `kept`, and is
    the caller's; without it, it stays as it is in systemd's hands.
    """
    given = {each: environ.pop(each, None) for each in _VARIABLES}
    count, names = given["LISTEN_FDS"], given["LISTEN_FDNAMES"] or ""
    if given["LISTEN_PID"] != str(pid) or count is None:
        return []
    sockets = []
    for fd, name in enumerate(_names(names, _number(count, names)), first):
        _keep_from_children(fd)
        if not name.startswith(PREFIX):
            sockets.append((fd, name))
        elif kept is None:
            os.close(fd)
        else:
            kept.append(fd)
    return [Passed(_listener(fd, given_back), name) for fd, name in sockets]


def recognise(
    passed: Iterable[Passed], settings: Settings, *, privileged: bool
) -> list[Recognised]:
    """What each is for. Raises StartFailed for one that nobody can tell, or that does not fit."""
    return [
        Recognised(each.listener, _service_of(each, settings, privileged=privileged))
        for each in passed
    ]


def as_activated(settings: Settings, sockets: Sequence[Recognised]) -> Settings:
    """The settings with what systemd has decided: whether there are TCP and TLS clients.

    They are what certificates and SASL are loaded by, at the start and at each reload.
    """
    if not sockets:
        return settings
    services = {each.service for each in sockets}
    listens: dict[str, Any] = {
        transport.traits.listen: service in services for service, transport in _TRANSPORTS.items()
    }
    return replace(settings, **listens)


def activated_listeners(
    sockets: Iterable[Recognised], settings: Settings, *, privileged: bool
) -> list[Listener]:
    """The sockets for clients, each with the door that it is. `settings` are as_activated."""
    local = unix_listenings(settings, privileged=privileged, directory="")
    by_service: dict[Service, UnixListening | NetworkListening | None] = {
        service: next((each for each in local if each.door.name == file), None)
        for service, file in _FILES.items()
    }
    for service, transport in _TRANSPORTS.items():
        by_service[service] = network_listening(settings, transport)
    found = []
    for each in sockets:
        match by_service.get(each.service):
            case UnixListening(door=door, backlog=backlog):
                pass
            case NetworkListening(backlog=backlog) as listening:
                door = listening.door(host_port(each.listener.getsockname()))
            case None:  # the admin socket
                continue
        # The limit is the daemon's own, as with libvirt; systemd's was a default.
        each.listener.listen(backlog)
        found.append(Listener(each.listener, door))
    return found


def activated_admin_listeners(sockets: Iterable[Recognised], settings: Settings) -> list[Listener]:
    """The sockets for administrators, likewise."""
    (asked, *_) = admin_listenings(settings, directory="")
    found = []
    for each in sockets:
        if each.service is Service.ADMIN:
            each.listener.listen(asked.backlog)
            name = os.path.basename(os.fsdecode(each.listener.getsockname())) or asked.door.name
            found.append(Listener(each.listener, replace(asked.door, name=name)))
    return found


def warn_of_no_effect(
    settings: Settings, sockets: Sequence[Recognised], changed: Collection[str] = ()
) -> None:
    """A line for each setting of the file that asks for what the socket units decide.

    `changed` are the keys that the file sets to something else than their defaults.
    """
    services = {each.service for each in sockets}
    for service, transport in _TRANSPORTS.items():
        key = transport.traits.listen
        if getattr(settings, key) and service not in services:
            log.warning(
                "%s = 1 has no effect where systemd makes the sockets, and there is none for %s"
                " clients; run, which ends sessions: systemctl stop virtproxyd.service &&"
                " systemctl enable --now %s",
                key,
                transport.name,
                service,
            )
    if settings.unix_sock_group is not None:
        log.warning(
            'unix_sock_group = "%s" is not applied where systemd makes the sockets; run: systemctl'
            " edit %s, and write there: [Socket] SocketGroup=%s",
            settings.unix_sock_group,
            Service.FULL,
            settings.unix_sock_group,
        )
    for key in changed:
        if SPECS[key].effect.in_own_sockets and key not in _SPOKEN_OF:
            log.warning(
                "%s is not applied where systemd makes the sockets; what their units say holds:"
                " systemctl cat 'virtproxyd*.socket'",
                key,
            )


def _number(count: str, names: str) -> int:
    if not (count.isascii() and count.isdecimal() and len(count) <= _MOST_DIGITS):
        raise StartFailed(
            Exit.NETWORK,
            f"LISTEN_FDS={count!r} is not a number of sockets: start this daemon by its systemd"
            " units, or without LISTEN_PID and LISTEN_FDS in its environment",
        )
    kept = sum(name.startswith(PREFIX) for name in names.split(":", _MOST_PASSED))
    if int(count) - kept > _MOST_SOCKETS:
        raise StartFailed(
            Exit.NETWORK,
            f"{count} sockets were passed in and {_MOST_SOCKETS} are the most: take ListenStream="
            " lines out of the socket units",
        )
    return int(count)


def _names(names: str, count: int) -> list[str]:
    """One for each; all empty if their number is not that of the sockets."""
    split = names.split(":", count)
    if len(split) != count:
        return [""] * count
    return [each[:_LONGEST_NAME] for each in split]


def _keep_from_children(fd: int) -> None:
    try:
        os.set_inheritable(fd, False)
    except OSError as error:
        raise _unfit(fd, "is not open", "start this daemon by its systemd units") from error


def _listener(fd: int, given_back: ExitStack) -> socket.socket:
    """The socket of a descriptor, non-blocking."""
    try:
        opened = socket.socket(fileno=fd)
    except OSError as error:
        raise _unfit(fd, "is no socket", "leave ListenFIFO=, ListenSpecial= out") from error
    given_back.callback(opened.close)
    if opened.family != socket.AF_UNIX and opened.family not in _NETWORK:
        raise _unfit(fd, f"is of the family {_spelled(opened.family)}", "only UNIX, IPv4, IPv6 are")
    if opened.type != socket.SOCK_STREAM:
        raise _unfit(fd, f"is of the type {_spelled(opened.type)}", "use ListenStream=")
    if not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise _unfit(fd, "does not listen", "set Accept=no, the default")
    opened.setblocking(False)
    if opened.family == socket.AF_UNIX:
        refuse_descriptors(opened)  # of everybody who connects from now on
    return opened


def _spelled(kind: object) -> str:
    # An IntEnum, but a plain number where Python knows no name for it.
    return str(getattr(kind, "name", kind))


def _unfit(fd: int, what: str, remedy: str) -> StartFailed:
    return StartFailed(
        Exit.NETWORK,
        f"descriptor {fd}, passed in by the service manager, {what}: {remedy} (in the socket unit)",
    )


def _service_of(passed: Passed, settings: Settings, *, privileged: bool) -> Service:
    service = _by_name(passed) or _by_address(passed, settings)
    if service is None:
        raise StartFailed(
            Exit.NETWORK,
            f"{passed} was passed in, and nothing says what it is for: write FileDescriptorName="
            f" into its socket unit, with one of {', '.join(Service)}; or take that unit away from"
            " this service",
        )
    if service.over_network != (passed.listener.family in _NETWORK):
        raise StartFailed(
            Exit.NETWORK,
            f"{passed} cannot serve as {service}, which takes"
            f" {'a TCP port' if service.over_network else 'a UNIX socket'}: correct ListenStream="
            f" or FileDescriptorName= in its unit (systemctl cat {service})",
        )
    if service is Service.READONLY and not privileged:
        raise StartFailed(
            Exit.NETWORK,
            f"{passed} was passed in, and a user's own daemon has no read-only socket; run:"
            f" systemctl --user disable --now {service}",
        )
    return service


def _by_name(passed: Passed) -> Service | None:
    try:
        return Service(passed.name)
    except ValueError:
        return None


def _by_address(passed: Passed, settings: Settings) -> Service | None:
    if passed.listener.family in _NETWORK:
        port = passed.listener.getsockname()[1]
        # If two have the same, the safe one is meant.
        ways = sorted(_TRANSPORTS.items(), key=lambda way: not way[1].traits.is_private)
        service = next(
            (each for each, way in ways if _port(getattr(settings, way.traits.port)) == port), None
        )
    else:
        service = _BY_FILE.get(os.path.basename(passed.address))
    if service is not None:
        log.info("%s is taken for %s by its address", passed, service)
    return service


def _port(port: str) -> int | None:
    """The number of a port that may be a service's name."""
    if port.isdecimal():
        return int(port)
    try:
        return socket.getservbyname(port, "tcp")
    except OSError:
        return None
