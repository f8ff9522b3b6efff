"""What the kernel says of the process at the other end of a UNIX socket.

Source: docs/protocol/identity.md, section 1. Only `names_of` and `group_names_of` may block, in the
name service.
"""

import contextlib
import errno
import grp
import os
import pwd
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from proxyd.config.shortage import explained
from proxyd.negotiation.identity import UNSEEN_PID, UNSEEN_START

_UCRED: Final = struct.Struct("@iII")  # pid, uid, gid
_SO_PEERSEC: Final = 31  # the peer's label, where a security module keeps one
_SO_PEERPIDFD: Final = 77  # since Linux 6.5; Python has no name for it yet
_PIDFD: Final = struct.Struct("@i")
_SO_PEERGROUPS: Final = 59  # since Linux 4.13
_MOST_AT_ONCE: Final = 1024  # bytes that Python's getsockopt takes: 256 groups
_MOST_GROUPS: Final = 65536  # NGROUPS_MAX
_GID: Final = "=I"
_LABEL_SIZE: Final = 4096
_SELINUX: Final = "/sys/fs/selinux/enforce"
_START_FIELD: Final = 22 - 3  # of /proc/PID/stat, counted behind the name's closing bracket
_LONGEST: Final = 4096  # of stat: 52 numbers and a name of 64 characters at most


class Denied(Exception):
    """Who it is cannot be found out, or is not let in; the text goes to client and log."""

    def __init__(self, reason: str, number: int = errno.ENOENT) -> None:
        super().__init__(reason)
        self.errno = number


class PeerCredentials(NamedTuple):
    """Credentials as they were when the peer connected.

    `gids` are all groups that the process was in; None where the kernel does not tell.
    """

    pid: int
    uid: int
    gid: int
    start_ticks: int
    selinux_context: str | None
    gids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The process that connected, as the kernel knows it. `pidfd` belongs to whoever asks."""

    pid: int
    start_ticks: int
    uid: int
    pidfd: int | None = None


def credentials_of(sock: socket.socket) -> PeerCredentials:
    """The peer of a connected UNIX socket. Raises Denied when it has already exited."""
    pid, uid, gid = _ucred(sock)
    if pid == 0:  # it lives in a pid namespace that we cannot see into
        pid, start_ticks = UNSEEN_PID, UNSEEN_START
    else:
        start_ticks = _start_ticks(pid)
    gids = _groups(sock, gid)
    return PeerCredentials(pid, uid, gid, start_ticks, _selinux_context(sock), gids)


def peer_pid(sock: socket.socket) -> int:
    """Who is at the other end: of a listener, whoever called listen(); 0 when it is not seen."""
    return _ucred(sock)[0]


def peer_uid(sock: socket.socket) -> int:
    """Whose process connected. Raises OSError."""
    return _ucred(sock)[1]


def peer_pidfd(sock: socket.socket) -> int | None:
    """The process that connected, as a descriptor that the caller closes.

    None where the kernel has no such thing (before Linux 6.5). Raises Denied.
    """
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _PIDFD.size)
    except OSError as error:
        number = error.errno or errno.EIO
        if number == errno.ENOPROTOOPT:
            return None
        if number in {errno.ESRCH, errno.EINVAL}:  # Linux 6.16 gives one of an ended process too
            raise Denied("the process that connected has ended", errno.ESRCH) from error
        text = explained(error, "cannot get hold of the process that connected")
        raise Denied(text, number) from error
    descriptor: int = _PIDFD.unpack(raw)[0]
    return descriptor


def ensure_it_is_there(pid: int, start_ticks: int, pidfd: int | None = None) -> None:
    """Raises Denied unless `pid` is now the process that it was when it connected.

    A process that has ended leaves its number to others: to know it again takes the time of its
    start, which is rough (a clock tick), or its pidfd, of which the kernel knows the number.
    """
    if pid == UNSEEN_PID:
        raise Denied(
            "the client's pid namespace cannot be seen from here, so nobody can be asked about it:"
            " connect from the host's own"
        )
    if pidfd is not None and _number_of(pidfd) != pid:
        raise Denied(f"process {pid}, which connected, has ended", errno.ESRCH)
    if _start_ticks(pid) != start_ticks:
        text = f"process {pid} is not the one that connected, which has ended: connect again"
        raise Denied(text, errno.ESRCH)


def names_of(uid: int, gid: int) -> tuple[str, str]:
    """User and group name. Asks the name service and may block. Raises Denied without a name."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise _nameless("user", "uid", uid) from None
    try:
        return user, grp.getgrgid(gid).gr_name
    except KeyError:
        raise _nameless("group", "gid", gid) from None


def gids_of(sock: socket.socket) -> tuple[int, ...] | None:
    """All groups that the peer of a UNIX socket was in; None where the kernel does not tell."""
    try:
        return _groups(sock, _ucred(sock)[2])
    except OSError:
        return None


def group_names_of(gids: Iterable[int]) -> frozenset[str]:
    """The names of groups; those that have none are left out. Asks the name service, may block."""
    names = set()
    for gid in gids:
        with contextlib.suppress(KeyError):
            names.add(grp.getgrgid(gid).gr_name)
    return frozenset(names)


def _groups(sock: socket.socket, gid: int) -> tuple[int, ...] | None:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_AT_ONCE)
    except OSError as error:
        if error.errno != errno.ERANGE:
            return None
        raw = _many_groups(sock)
    more = (each[0] for each in struct.iter_unpack(_GID, raw))
    return tuple(dict.fromkeys((gid, *more)))


def _many_groups(sock: socket.socket) -> bytes:
    """Of a process that is in more of them than Python's own call takes."""
    import ctypes  # noqa: PLC0415 (half a megabyte, which next to nobody needs)

    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_uint32(_MOST_GROUPS * struct.calcsize(_GID))
    groups = ctypes.create_string_buffer(size.value)
    done = libc.getsockopt(
        sock.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, groups, ctypes.byref(size)
    )
    if done:
        raise OSError(ctypes.get_errno(), "cannot read the groups of who connected")
    return groups.raw[: size.value]


def _ucred(sock: socket.socket) -> tuple[int, int, int]:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return pid, uid, gid


def _nameless(kind: str, number_name: str, number: int) -> Denied:
    # The library says the same when it could not even open its files.
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        text = explained(error, f"cannot ask for the name of {number_name} {number}")
        return Denied(text, error.errno or errno.EIO)
    return Denied(f"no {kind} has the {number_name} {number}: add one, or let another user connect")


def _start_ticks(pid: int) -> int:
    try:
        # Of its first thread, which began with it: for the process the kernel goes through all of
        # its threads, which takes 1.5 ms where somebody has 20,000 (and 10 µs for the one). The
        # name may hold anything, brackets and spaces included: count from its end.
        behind_name = _read(f"/proc/{pid}/task/{pid}/stat").rpartition(b")")[2].split()
        return int(behind_name[_START_FIELD])
    except (FileNotFoundError, ProcessLookupError, IndexError, ValueError) as error:
        text = f"process {pid} has ended, so nobody can say who it was"
        raise Denied(text, errno.ESRCH) from error
    except OSError as error:
        number = error.errno or errno.EIO
        raise Denied(explained(error, f"cannot look at process {pid}"), number) from error


def _number_of(pidfd: int) -> int:
    """The process's number in our namespace; -1 once it has ended and been collected."""
    try:
        lines = _read(f"/proc/self/fdinfo/{pidfd}").splitlines()
    except OSError as error:
        number = error.errno or errno.EIO
        text = explained(error, "cannot look at the process that connected")
        raise Denied(text, number) from error
    for line in lines:
        field, _, value = line.partition(b":")
        if field == b"Pid":
            return int(value)
    raise Denied(f"descriptor {pidfd} is no process", errno.EBADF)


def _read(path: str) -> bytes:
    """The beginning of a file of /proc; a tenth of what a file object costs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _LONGEST)
    finally:
        os.close(descriptor)


def _selinux_context(sock: socket.socket) -> str | None:
    # Other security modules answer SO_PEERSEC as well; only SELinux's label is one that a
    # daemon could use.
    if not os.path.exists(_SELINUX):
        return None
    with contextlib.suppress(OSError):
        label = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERSEC, _LABEL_SIZE)
        return label.rstrip(b"\0").decode("utf-8", "surrogateescape") or None
    return None
