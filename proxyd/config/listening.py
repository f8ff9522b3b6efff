"""Which listeners the settings ask for, as values: no socket is made here.

Source: reference/handshake.md, section 1, and reference/config.md, section 4.
"""

from dataclasses import dataclass
from typing import Final

from proxyd.config.settings import Settings
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


def unix_listenings(settings: Settings, *, privileged: bool, directory: str) -> list[UnixListening]:
    """The legacy sockets for clients; an unprivileged daemon has no read-only one.

    `directory` is where they lie: what unix_sock_dir says, made absolute, or the default.
    """
    backlog = min(settings.max_queued_clients or _SMALLEST_BACKLOG, _LARGEST_BACKLOG)

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
