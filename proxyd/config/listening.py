"""Which listeners the settings ask for, as values: no socket is made here.

Source: reference/handshake.md, section 1, and reference/config.md, section 4.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from proxyd.config.settings import Settings
from proxyd.wire.programs import AuthMethod

_METHODS: Final = {
    "none": AuthMethod.NONE,
    "sasl": AuthMethod.SASL,
    "polkit": AuthMethod.POLKIT,
}
ADMIN_SOCKETS: Final = ("libvirt-admin-sock", "virtproxyd-admin-sock")
_SMALLEST_BACKLOG: Final = 30  # what max_queued_clients = 0 stands for
_LARGEST_BACKLOG: Final = 2**31 - 1  # what listen() takes; the kernel has a lower limit of its own


class Transport(IntEnum):
    """The numbers are those that virt-admin shows (reference/admin.md)."""

    UNIX = 0
    TCP = 1
    TLS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What is asked of whoever comes in by one listener, and what they may do then.

    `own_uid_only`: a user's daemon serves that user alone.
    """

    name: str
    transport: Transport = Transport.UNIX
    method: AuthMethod
    readonly: bool
    own_uid_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixListening:
    """A UNIX listener: its address, its permissions, and the door that it is."""

    path: str
    mode: int
    backlog: int
    door: Door


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkListening:
    """A port on one or several addresses, all of them if `host` is None.

    `key` is the setting that names the port.
    """

    transport: Transport
    key: str
    host: str | None
    port: str
    backlog: int
    method: AuthMethod

    @property
    def name(self) -> str:
        """What log lines call it."""
        return self.transport.name.lower()

    def door(self, address: str) -> Door:
        """What it is at one of its addresses."""
        return Door(
            name=f"{self.name} {address}",
            transport=self.transport,
            method=self.method,
            readonly=False,
            own_uid_only=False,
        )


def network_listenings(settings: Settings) -> list[NetworkListening]:
    """The ports that the settings ask for."""
    found = (tcp_listening(settings), tls_listening(settings))
    return [each for each in found if each is not None]


def sasl_transports(settings: Settings, *, privileged: bool) -> dict[Transport, str]:
    """Where clients prove themselves by SASL, and the setting that says so."""
    asking = {
        "auth_unix_ro": (Transport.UNIX, privileged),
        "auth_unix_rw": (Transport.UNIX, True),
        "auth_tcp": (Transport.TCP, settings.listen_tcp),
        "auth_tls": (Transport.TLS, settings.listen_tls),
    }
    return {
        transport: key
        for key, (transport, listens) in asking.items()
        if listens and getattr(settings, key) == "sasl"
    }


def tcp_listening(settings: Settings) -> NetworkListening | None:
    """The port for TCP clients, if the settings ask for it."""
    if not settings.listen_tcp:
        return None
    return NetworkListening(
        transport=Transport.TCP,
        key="tcp_port",
        host=settings.listen_addr,
        port=settings.tcp_port,
        backlog=_backlog(settings),
        method=_METHODS[settings.auth_tcp],
    )


def tls_listening(settings: Settings) -> NetworkListening | None:
    """The port for TLS clients, if the settings ask for it."""
    if not settings.listen_tls:
        return None
    return NetworkListening(
        transport=Transport.TLS,
        key="tls_port",
        host=settings.listen_addr,
        port=settings.tls_port,
        backlog=_backlog(settings),
        method=_METHODS[settings.auth_tls],
    )


def unix_listenings(settings: Settings, *, privileged: bool, directory: str) -> list[UnixListening]:
    """The legacy sockets for clients; an unprivileged daemon has no read-only one.

    `directory` is where they lie: what unix_sock_dir says, made absolute, or the default.
    """
    backlog = _backlog(settings)

    def listening(name: str, mode: int, auth: str, *, readonly: bool) -> UnixListening:
        door = Door(
            name=name, method=_METHODS[auth], readonly=readonly, own_uid_only=not privileged
        )
        return UnixListening(path=f"{directory}/{name}", mode=mode, backlog=backlog, door=door)

    listenings = [
        listening(
            "libvirt-sock", settings.unix_sock_rw_perms, settings.auth_unix_rw, readonly=False
        )
    ]
    if privileged:
        listenings.append(
            listening(
                "libvirt-sock-ro", settings.unix_sock_ro_perms, settings.auth_unix_ro, readonly=True
            )
        )
    return listenings


def admin_listenings(settings: Settings, *, directory: str) -> list[UnixListening]:
    """The sockets for virt-admin: libvirt's name, which virt-admin looks for by `libvirtd:///`,
    and the one that it looks for by `virtproxyd:///` (reference/admin.md, section 7)."""
    backlog = min(settings.admin_max_queued_clients or _SMALLEST_BACKLOG, _LARGEST_BACKLOG)
    return [
        UnixListening(
            path=f"{directory}/{name}",
            mode=settings.unix_sock_admin_perms,
            backlog=backlog,
            door=Door(name=name, method=AuthMethod.NONE, readonly=False, own_uid_only=True),
        )
        for name in ADMIN_SOCKETS
    ]


def _backlog(settings: Settings) -> int:
    return min(settings.max_queued_clients or _SMALLEST_BACKLOG, _LARGEST_BACKLOG)
