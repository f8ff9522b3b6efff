"""Which listeners the settings ask for, as values: no socket is made here.

Source: docs/protocol/listeners.md, section 1, and docs/protocol/process.md, section 3.
"""

from dataclasses import dataclass
from typing import Final

from proxyd.config.addresses import ADMIN_SOCKETS, LEGACY, LEGACY_READONLY
from proxyd.config.settings import Settings
from proxyd.config.transports import BY_NETWORK, Transport
from proxyd.wire.programs import AuthMethod

_METHODS: Final = {
    "none": AuthMethod.NONE,
    "sasl": AuthMethod.SASL,
    "polkit": AuthMethod.POLKIT,
}
_SMALLEST_BACKLOG: Final = 30  # what max_queued_clients = 0 stands for
_LARGEST_BACKLOG: Final = 2**31 - 1  # what listen() takes; the kernel has a lower limit of its own


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


def by_certificate(*, enforce: bool, allowed: object | None) -> str:
    """What a TLS client's certificate proves; "" where none is asked of it.

    `enforce` is whether certificates are verified, `allowed` the list of names, None without one.
    """
    if not enforce:
        return ""
    return "x509" if allowed is None else "x509 + allowed list"


def authentication(door: Door, certificate: str, mechanism: str = "") -> str:
    """What a door takes a client's word on, in words: "polkit", "x509 + sasl GSSAPI", "none".

    `certificate` is what `by_certificate` said; `mechanism` the one of SASL, once it is known.
    """
    shown = door.transport.traits.shakes_hands
    ways = [certificate] if shown and certificate else []
    if door.method is not AuthMethod.NONE:
        ways.append(f"{door.method.name.lower()} {mechanism}".rstrip())
    text = " + ".join(ways) or "none"
    if shown and not certificate:
        text += " (certificates are not verified)"
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixListening:
    """A UNIX listener: its address, its permissions, and the door that it is."""

    path: str
    mode: int
    backlog: int
    door: Door


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkListening:
    """A port on one or several addresses, all of them if `host` is None."""

    transport: Transport
    host: str | None
    port: str
    backlog: int
    method: AuthMethod

    @property
    def name(self) -> str:
        """What log lines call it."""
        return self.transport.name.lower()

    @property
    def key(self) -> str:
        """The setting that names the port."""
        return self.transport.traits.port

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
    found = (network_listening(settings, transport) for transport in BY_NETWORK)
    return [each for each in found if each is not None]


def network_listening(settings: Settings, transport: Transport) -> NetworkListening | None:
    """The port for clients who come by this, if the settings ask for it."""
    traits = transport.traits
    if not getattr(settings, traits.listen):
        return None
    return NetworkListening(
        transport=transport,
        host=settings.listen_addr,
        port=getattr(settings, traits.port),
        backlog=_backlog(settings),
        method=_METHODS[getattr(settings, traits.auth[0])],
    )


def sasl_transports(settings: Settings, *, privileged: bool) -> dict[Transport, str]:
    """Where clients prove themselves by SASL, and the setting that says so."""
    found = {}
    for transport in Transport:
        traits = transport.traits
        listens = not traits.listen or getattr(settings, traits.listen)
        # A user's own daemon has no read-only socket.
        keys = traits.auth if privileged else traits.auth[:1]
        asking = [key for key in keys if getattr(settings, key) == "sasl"]
        if listens and asking:
            found[transport] = asking[0]
    return found


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
        listening(LEGACY, settings.unix_sock_rw_perms, settings.auth_unix_rw, readonly=False)
    ]
    if privileged:
        listenings.append(
            listening(
                LEGACY_READONLY, settings.unix_sock_ro_perms, settings.auth_unix_ro, readonly=True
            )
        )
    return listenings


def admin_listenings(settings: Settings, *, directory: str) -> list[UnixListening]:
    """The sockets for virt-admin: libvirt's name, which virt-admin looks for by `libvirtd:///`,
    and the one that it looks for by `virtproxyd:///` (docs/protocol/admin.md, section 6)."""
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
