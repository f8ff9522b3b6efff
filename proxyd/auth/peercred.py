"""What the kernel says of the process at the other end of a UNIX socket.

Source: reference/handshake.md, section 3. Only `names_of` may block, in the name service.
"""

import contextlib
import grp
import pwd
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxyd.negotiation.identity import UNSEEN_PID, UNSEEN_START

_UCRED: Final = struct.Struct("@iII")  # pid, uid, gid
_SO_PEERSEC: Final = 31  # the peer's label, where a security module keeps one
_LABEL_SIZE: Final = 4096
_SELINUX: Final = Path("/sys/fs/selinux/enforce")
_START_FIELD: Final = 22 - 3  # of /proc/PID/stat, counted behind the name's closing bracket


class Denied(Exception):
    """Who it is cannot be found out, or is not let in; the text goes to client and log."""


@dataclass(frozen=True, slots=True)
class PeerCredentials:
    """Credentials as they were when the peer connected."""

    pid: int
    uid: int
    gid: int
    start_ticks: int
    selinux_context: str | None


def credentials_of(sock: socket.socket) -> PeerCredentials:
    """The peer of a connected UNIX socket. Raises Denied when it has already exited."""
    pid, uid, gid = _UCRED.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    if pid == 0:  # it lives in a pid namespace that we cannot see into
        return PeerCredentials(UNSEEN_PID, uid, gid, UNSEEN_START, _selinux_context(sock))
    return PeerCredentials(pid, uid, gid, _start_ticks(pid), _selinux_context(sock))


def names_of(uid: int, gid: int) -> tuple[str, str]:
    """User and group name. Asks the name service and may block. Raises Denied without a name."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise Denied(f"no user has the uid {uid}: add one, or let another user connect") from None
    try:
        return user, grp.getgrgid(gid).gr_name
    except KeyError:
        raise Denied(f"no group has the gid {gid}: add one, or let another user connect") from None


def _start_ticks(pid: int) -> int:
    try:
        # The name may hold anything, brackets and spaces included: count from its end.
        behind_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(behind_name[_START_FIELD])
    except (OSError, IndexError, ValueError) as error:
        raise Denied(f"process {pid} has ended, so nobody can say who it was") from error


def _selinux_context(sock: socket.socket) -> str | None:
    # Other security modules answer SO_PEERSEC as well; only SELinux's label is one that a
    # daemon could use.
    if not _SELINUX.exists():
        return None
    with contextlib.suppress(OSError):
        label = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERSEC, _LABEL_SIZE)
        return label.rstrip(b"\0").decode("utf-8", "surrogateescape") or None
    return None
