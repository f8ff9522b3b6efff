"""How addresses are written: of a port as in a URI, and what libvirt calls its daemons' sockets.

Source: docs/protocol/listeners.md, section 1, and docs/protocol/routing.md.
"""

from collections.abc import Sequence
from typing import Final

_READONLY: Final = "-ro"  # behind the name of a socket, and of its unit
_SOCKET: Final = "-sock"


def host_port(address: Sequence[object]) -> str:
    """HOST:PORT or [HOST]:PORT of a socket's address, whose other parts do not matter."""
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def socket_name(stem: str, *, readonly: bool = False) -> str:
    """The last part of the path of a daemon's socket, as `virtqemud-sock-ro`."""
    return f"{stem}{_SOCKET}{_READONLY if readonly else ''}"


def socket_unit(daemon: str, *, readonly: bool = False) -> str:
    """The systemd unit of the same, as `virtqemud-ro.socket`."""
    return f"{daemon}{_READONLY if readonly else ''}.socket"


def daemon_at(path: str) -> str:
    """Whose socket a path is, by its last part: the opposite of `socket_name`."""
    return path.rpartition("/")[2].removesuffix(_READONLY).removesuffix(_SOCKET)


# Where clients look that know the monolithic daemon alone.
LEGACY: Final = socket_name("libvirt")
LEGACY_READONLY: Final = socket_name("libvirt", readonly=True)
ADMIN_SOCKETS: Final = ("libvirt-admin-sock", "virtproxyd-admin-sock")
