"""The pid file, which is also what keeps a second daemon from starting (config.md section 4).

What counts is the lock, not the file: a POSIX lock on byte 0, the one that libvirt's daemons take,
so that either program sees the other. Such a lock has two traps. It does not survive fork(), so it
is taken after the daemon went into the background. And it is lost as soon as *any* descriptor of
that file is closed in this process, so nothing else in the program may open the pid file.
"""

import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from proxyd.daemon.owner import Owner
from proxyd.daemon.shortage import remedy

_MODE: Final = 0o644
# Each turn means that another process removed the file between our open and our lock, which it
# does once in its life.
_MOST_TURNS: Final = 100
# struct flock: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("@hhqqi4x")


class PidFileError(Exception):
    """The pid file cannot be had; the text says why and what to do."""


class PidFileTaken(PidFileError):
    """Another process holds the lock."""

    def __init__(self, path: str, owner: Owner) -> None:
        stop = f"stop it (kill {owner.pid}, or its systemd service)" if owner.pid else "stop it"
        super().__init__(
            f"the pid file {path} is locked by {owner}: {stop},"
            " or give this daemon another file with --pid-file"
        )
        self.path = path
        self.owner = owner


@dataclass(slots=True)
class PidFile:
    """A pid file that is ours until `release`, or until this process ends."""

    path: str
    _fd: int

    def release(self) -> None:
        """Remove the file and give up the lock. Once is enough; more is harmless."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        # Removed while still locked, so that nobody locks a file that is about to vanish; and
        # only if it is still ours, for somebody may have put another one in its place.
        with suppress(OSError):
            if _names(self.path, fd):
                os.unlink(self.path)
        os.close(fd)


def acquire_pid_file(path: str) -> PidFile:
    """Lock the file and write our pid into it; raises PidFileTaken or another PidFileError."""
    path = os.path.abspath(path)
    for _ in range(_MOST_TURNS):
        try:
            fd = _open(path)
        except OSError as error:
            raise PidFileError(_cannot_open(path, error)) from error
        try:
            if _locked_and_current(path, fd):
                _write_pid(path, fd)
                return PidFile(path, fd)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise PidFileError(f"the pid file {path} is replaced again and again: find out by whom")


def _open(path: str) -> int:
    # Whoever can put a symbolic link there must not choose which file we truncate. Read and write,
    # because opening a named pipe for writing alone would wait for its reader.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
    return os.open(path, flags, _MODE)


def _cannot_open(path: str, error: OSError) -> str:
    directory = os.path.dirname(path)
    if error.errno == errno.ENOENT:
        return f"cannot make the pid file {path}: no such directory; run: mkdir -p {directory}"
    if error.errno == errno.ELOOP:
        return f"the pid file {path} is a symbolic link: remove it or name the file itself"
    let = "let this user write there, or give another file with --pid-file"
    return f"cannot open the pid file {path}: {error.strerror}; {remedy(error, let)}"


def _locked_and_current(path: str, fd: int) -> bool:
    """Lock the file; False if it is no longer the one that the path names."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise PidFileError(f"{path} is no regular file: remove it or give another with --pid-file")
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):  # POSIX allows either
            raise PidFileError(f"cannot lock the pid file {path}: {error.strerror}") from error
        raise PidFileTaken(path, _lock_owner(fd)) from error
    return _names(path, fd)


def _lock_owner(fd: int) -> Owner:
    """The process that holds the lock: from the kernel, since its pid may not be written yet."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    try:
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    except OSError:
        return Owner(0)
    # -1 is an open-file lock, 0 a process of another container.
    return Owner(pid if kind != fcntl.F_UNLCK and pid > 0 else 0)


def _names(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _write_pid(path: str, fd: int) -> None:
    try:
        os.fchmod(fd, _MODE)  # whatever the umask is: monitoring programs read it
        os.ftruncate(fd, 0)
        os.write(fd, b"%d" % os.getpid())
    except OSError as error:
        raise PidFileError(f"cannot write the pid file {path}: {error.strerror}") from error
