"""Where a daemon's files are, for root and for anybody else.

Source: docs/protocol/process.md, section 3.
"""

import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxyd.config.routes import RoutingTable
from proxyd.config.settings import Settings

_SYSTEM_RUNTIME: Final = "/run/libvirt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Default paths. `privileged` is whether the daemon runs as root."""

    privileged: bool
    config_file: str
    runtime_dir: str
    pid_file: str
    log_file: str
    passwords: str
    pki: str = ""  # directory of a user's own certificates


def places_of(environ: Mapping[str, str], *, euid: int) -> Places:
    """The places of a daemon that runs as `euid`."""
    if euid == 0:
        return Places(
            privileged=True,
            config_file="/etc/libvirt/virtproxyd.conf",
            runtime_dir=_SYSTEM_RUNTIME,
            pid_file="/run/virtproxyd.pid",
            log_file="/var/log/libvirt/virtproxyd.log",
            passwords="/etc/libvirt/proxyd-passwords",
        )

    def absolute(name: str, otherwise: str) -> str:
        # The XDG specification: a relative path there is invalid and to be ignored.
        given = environ.get(name, "")
        return given if given.startswith("/") else otherwise

    home = absolute("HOME", _home_of(euid))
    config = absolute("XDG_CONFIG_HOME", f"{home}/.config")
    cache = absolute("XDG_CACHE_HOME", f"{home}/.cache")
    runtime = f"{absolute('XDG_RUNTIME_DIR', cache)}/libvirt"
    return Places(
        privileged=False,
        config_file=f"{config}/libvirt/virtproxyd.conf",
        runtime_dir=runtime,
        pid_file=f"{runtime}/virtproxyd.pid",
        log_file=f"{cache}/libvirt/virtproxyd.log",
        passwords=f"{config}/libvirt/proxyd-passwords",
        pki=f"{home}/.pki/libvirt",
    )


def _home_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"


def routing_table(settings: Settings, places: Places) -> RoutingTable:
    """The table that the settings ask for, with the sockets where they say."""
    given = settings.proxyd_backend_dir
    return RoutingTable(
        privileged=places.privileged,
        system_dir=given or _SYSTEM_RUNTIME,
        session_dir=given or places.runtime_dir,
        routes=dict(route.split("=", 1) for route in settings.proxyd_routes),
    )
