"""UNIX listening sockets: made so that nobody loses theirs and nobody gets in too early.

Two things can go wrong here that nobody notices until much later. libvirt's daemons unlink the
path before they bind, so a second daemon takes the address away from the first, which goes on
running without clients. And a socket that listens before it has its mode lets in whoever is quick.
So: look whether somebody is at home before anything is removed, and listen() last of all.
(docs/protocol/listeners.md, section 2, and docs/protocol/process.md, section 3. Two starts of the
same daemon at the same time are kept apart by the pid file.)
"""

import errno
import logging
import os
import shlex
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from proxyd.config.shortage import remedy
from proxyd.endpoint.ancillary import refuse_descriptors
from proxyd.endpoint.couriers import COURIERS
from proxyd.listen.inherited import Inherited, Offered
from proxyd.peer.credentials import peer_pid
from proxyd.process.sockets import Owner, path_holders

log = logging.getLogger("rpc.netserverservice")

# sockaddr_un.sun_path has 108 bytes, and a path ends with a NUL.
LONGEST_PATH: Final = 107

# What connect() says of a path that can be had: it is gone, or its socket does not listen. The
# latter is also true of a daemon just before its listen(): that one the pid file keeps out.
_NOBODY: Final = (errno.ENOENT, errno.ECONNREFUSED)
# And of one that lives but tells nothing about itself: a full backlog, a socket of another type.
_SOMEBODY_UNNAMED: Final = (errno.EAGAIN, errno.EPROTOTYPE)

_OTHERS_MAY_CONNECT: Final = 0o006
_HOW_TO_STOP: Final = (
    "stop it first (for libvirt's own daemon: systemctl stop libvirtd.socket libvirtd-ro.socket"
    " libvirtd-admin.socket libvirtd.service, likewise with virtproxyd), or let this daemon listen"
    " in another directory (unix_sock_dir)"
)
_LET_WRITE: Final = "let this user write to its directory or choose another one (unix_sock_dir)"
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFREG: "a regular file",
}


class ListenerError(Exception):
    """An address cannot be had; the text says why and what to do."""


class AddressTaken(ListenerError):
    """A live process serves the path."""

    def __init__(self, path: str, owner: Owner) -> None:
        named = str(owner) if owner.pid else f"{owner} (fuser {path} may name it)"
        super().__init__(f"{path} is served by {named}: {_HOW_TO_STOP}")
        self.path = path
        self.owner = owner


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixListenerSpec:
    """What is asked for. A path that begins with `@` is an abstract name."""

    path: str
    mode: int
    gid: int | None
    backlog: int


class UnixListener:
    """A listening socket and the file that is its address."""

    def __init__(
        self,
        opened: socket.socket,
        path: str,
        identity: os.stat_result | None,
        *,
        inherited: UnixListenerSpec | None = None,
    ) -> None:
        self.socket = opened
        self.path = path
        self._identity = identity
        self._inherited = inherited  # and still the other process's, who may go on with it
        self._is_ours = inherited is None

    @property
    def file(self) -> tuple[int, int] | None:
        """Device and inode of its file; None of an abstract address."""
        return None if self._identity is None else (self._identity.st_dev, self._identity.st_ino)

    def own(self) -> None:
        """The process before has handed over: the socket is this one's, and as it wants it."""
        spec, self._inherited = self._inherited, None
        if spec is None:
            return
        self._is_ours = True
        try:
            if self._identity is not None:
                _set_permissions(spec)
            self.socket.listen(spec.backlog)
        except OSError as error:
            log.error("%s keeps its mode and group: %s", self.path, error.strerror)

    def disown(self) -> None:
        """Another process of this daemon listens with the same socket: the file is its, and so is
        whoever waits."""
        self._is_ours = False

    def close(self) -> None:
        """Stop listening, and remove the file if it is still this socket's own."""
        # First the file: the other way round a client would be refused instead of not finding it.
        identity, self._identity = self._identity, None
        if not self._is_ours:
            self.socket.close()
            return
        try:
            if identity is not None:
                _unlink_if_same(self.path, identity)
        except OSError as error:
            log.warning("cannot remove %s: %s; the next start will", self.path, error.strerror)
        finally:
            self._turn_away_who_waits()
            self.socket.close()

    def _turn_away_who_waits(self) -> None:
        """Descriptors that they have sent already would be closed by the close of the listener."""
        with suppress(OSError):  # at the latest, when nobody is left
            self.socket.shutdown(socket.SHUT_RDWR)  # nobody comes any more
            while True:
                COURIERS.bury(self.socket.accept()[0])


def open_unix_listener(spec: UnixListenerSpec, inherited: Inherited | None = None) -> UnixListener:
    """Listen on the path, non-blocking; raises AddressTaken or another ListenerError.

    With what the process before listened with, if that has this path.
    """
    address = _address(spec.path)
    before = inherited.at("UNIX", socket.AF_UNIX, address) if inherited is not None else None
    if before is not None and (listener := _gone_on_with(before, spec)) is not None:
        return listener
    if not spec.path.startswith("@"):
        _make_room(spec.path, address)
    opened = _unix_socket(socket.SOCK_STREAM)
    identity = None
    try:
        _bind(opened, address, spec.path)
        if spec.path.startswith("@"):
            _warn_of_open_door(spec)
        else:
            identity = os.lstat(spec.path)
            _set_permissions(spec)
        refuse_descriptors(opened)  # of everybody who connects
        opened.listen(spec.backlog)
    except BaseException as error:
        UnixListener(opened, spec.path, identity).close()
        if isinstance(error, OSError):
            raise ListenerError(f"cannot listen on {spec.path}: {error.strerror}") from error
        raise
    return UnixListener(opened, spec.path, identity)


def _gone_on_with(before: Offered, spec: UnixListenerSpec) -> UnixListener | None:
    """None where its file is not there any more, or another one: nobody finds it by that path.

    Nothing is changed of it until it is this process's own (`UnixListener.own`).
    """
    identity = None
    try:
        if before.file is not None:
            identity = os.lstat(spec.path)
            if (identity.st_dev, identity.st_ino) != before.file:
                before.sock.close()
                return None
    except FileNotFoundError:
        before.sock.close()
        return None
    except OSError as error:
        before.sock.close()
        raise ListenerError(f"cannot go on to listen on {spec.path}: {error.strerror}") from error
    return UnixListener(before.sock, spec.path, identity, inherited=spec)


def demand_room(path: str, is_own: Callable[[int], bool]) -> None:
    """Raises ListenerError where the path cannot be had. Removes nothing, connects to nobody.

    `is_own` says of a process that listens there whether it is one that would make room.
    """
    _address(path)
    if path.startswith("@"):
        return
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        _demand_directory(path)
    except OSError as error:
        raise ListenerError(f"cannot look at {path}: {error.strerror}") from error
    else:
        _demand_socket(path, found)
        here = path_holders(path)
        if here is not None and not any(map(is_own, here)):
            raise AddressTaken(path, Owner(min(here, default=0)))
    if not os.access(os.path.dirname(path) or ".", os.W_OK | os.X_OK):
        raise ListenerError(f"cannot listen on {path}: {os.strerror(errno.EACCES)}; {_LET_WRITE}")


def _address(path: str) -> bytes:
    raw = os.fsencode(path)
    if len(raw) > LONGEST_PATH:
        raise ListenerError(
            f"the socket path {path} has {len(raw)} bytes and the kernel takes {LONGEST_PATH}:"
            " choose a shorter directory (unix_sock_dir)"
        )
    if raw.startswith(b"@"):
        # libvirt hands over the whole of sun_path, so to its clients the NULs behind an abstract
        # name belong to the name.
        return b"\0" + raw[1:].ljust(LONGEST_PATH, b"\0")
    return raw


def _unix_socket(kind: socket.SocketKind) -> socket.socket:
    return socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def _make_room(path: str, address: bytes) -> None:
    """Remove a stale socket file; raise when the path is anybody's or is no socket."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        _demand_directory(path)
        return
    except OSError as error:
        raise ListenerError(f"cannot look at {path}: {error.strerror}") from error
    _demand_socket(path, found)
    _demand_stale(path, address)
    try:
        _unlink_if_same(path, found)
    except OSError as error:
        raise ListenerError(
            f"cannot remove the stale socket {path}: {error.strerror}; remove it by hand"
        ) from error


def _demand_socket(path: str, found: os.stat_result) -> None:
    if not stat.S_ISSOCK(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no socket")
        raise ListenerError(
            f"cannot listen on {path}: it is {kind}, which this daemon never removes;"
            " move it away or choose another directory (unix_sock_dir)"
        )


def _demand_directory(path: str) -> None:
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise ListenerError(
            f"cannot listen on {path}: there is no directory {directory};"
            f" run: mkdir -p {shlex.quote(directory)}"
        )


def _demand_stale(path: str, address: bytes) -> None:
    """Return only if nobody listens at the socket that is there."""
    with _unix_socket(socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address)
        except OSError as error:
            if error.errno in _NOBODY:
                return
            if error.errno in _SOMEBODY_UNNAMED:
                raise AddressTaken(path, Owner(0)) from error
            raise ListenerError(
                f"cannot tell whether {path} is served: {error.strerror}. If it is,"
                f" {_HOW_TO_STOP}; if not, remove it"
            ) from error
        # Under socket activation that is systemd.
        raise AddressTaken(path, Owner(peer_pid(probe)))


def _bind(opened: socket.socket, address: bytes, path: str) -> None:
    try:
        opened.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            _demand_stale(path, address)
        raise ListenerError(
            f"cannot listen on {path}: {error.strerror}; {remedy(error, _LET_WRITE)}"
        ) from error


def _set_permissions(spec: UnixListenerSpec) -> None:
    # Nobody can connect yet, whatever mode the umask left: the socket does not listen.
    if spec.gid is not None:
        os.chown(spec.path, -1, spec.gid, follow_symlinks=False)
    os.chmod(spec.path, spec.mode)


def _warn_of_open_door(spec: UnixListenerSpec) -> None:
    if spec.mode & _OTHERS_MAY_CONNECT != _OTHERS_MAY_CONNECT:
        log.warning(
            "%s is an abstract address, which has no permissions: mode %04o and group are not"
            " applied, every process of this host may connect",
            spec.path,
            spec.mode,
        )


def _unlink_if_same(path: str, identity: os.stat_result) -> None:
    try:
        if os.path.samestat(os.lstat(path), identity):
            os.unlink(path)
    except FileNotFoundError:
        return  # somebody was quicker; it is gone either way
