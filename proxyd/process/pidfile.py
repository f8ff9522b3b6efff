"""The pid file, which is also what keeps a second daemon from starting.

Source: docs/protocol/process.md, section 3.

What counts is the lock, not the file: a POSIX lock on byte 0, the one that libvirt's daemons take,
so that either program sees the other. Such a lock has two traps. It does not survive fork(), so it
is taken after the daemon went into the background. And it is lost as soon as *any* descriptor of
that file is closed in this process, so nothing else in the program may open the pid file.

Everybody may read the file, and who may read it can lock it against writers: such a *read* lock is
no daemon's, whose lock is for writing and takes the right to write. So where nobody holds one of
these, the file is replaced by another, which was locked before anybody could open it.
"""

import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from proxyd.autostart.lock import take_lock
from proxyd.config.shortage import remedy
from proxyd.process.sockets import Owner

_MODE: Final = 0o644
_UNTIL_LOCKED: Final = 0o600
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

    @property
    def is_in_place(self) -> bool:
        """Nobody has put another one there."""
        return self._fd >= 0 and _names(self.path, self._fd)

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
    replaced: PidFile | None = None
    for _ in range(_MOST_TURNS):
        try:
            fd = _open(path)
        except OSError as error:
            raise PidFileError(_cannot_open(path, error)) from error
        try:
            _check(path, fd)
            if not _locked(path, fd):
                replaced = _replaced(path, fd)
            elif _names(path, fd):
                _write_pid(path, fd)
                return PidFile(path, fd)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if replaced is not None:
            return replaced
    raise PidFileError(f"the pid file {path} is replaced again and again: find out by whom")


def succeed_pid_file(path: str) -> PidFile:
    """Takes the place of the process that handed over to this one, which holds the lock.

    A file of our own, locked and with our number, is put in the place of its file: at no moment is
    there one that another daemon could lock. Raises PidFileError.
    """
    path = os.path.abspath(path)
    new = f"{path}.new"
    try:
        remove_unfinished(path)
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _UNTIL_LOCKED)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
            _write_pid(new, fd)
            os.rename(new, path)
        except BaseException:
            os.close(fd)
            _remove(new)
            raise
    except OSError as error:
        raise PidFileError(_cannot_open(path, error)) from error
    return PidFile(path, fd)


def remove_unfinished(path: str) -> None:
    """What a process has left that was killed while it took the place. Raises OSError."""
    _remove(f"{os.path.abspath(path)}.new")


def demand_pid_file(path: str) -> None:
    """Raises PidFileError where it cannot be made or is no file of a daemon's. Makes none."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK)
    except FileNotFoundError:
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            raise PidFileError(_cannot_open(path, FileNotFoundError(errno.ENOENT, ""))) from None
        if not os.access(directory, os.W_OK | os.X_OK):
            denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            raise PidFileError(_cannot_open(path, denied)) from None
    except OSError as error:
        raise PidFileError(_cannot_open(path, error)) from error
    else:
        try:
            _check(path, fd)
        finally:
            os.close(fd)


def _open(path: str) -> int:
    # Whoever can put a symbolic link there must not choose which file we truncate. Read and write,
    # because opening a named pipe for writing alone would wait for its reader.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
    return os.open(path, flags, _UNTIL_LOCKED)


def _cannot_open(path: str, error: OSError) -> str:
    directory = os.path.dirname(path)
    if error.errno == errno.ENOENT:
        return f"cannot make the pid file {path}: no such directory; run: mkdir -p {directory}"
    if error.errno == errno.ELOOP:
        return f"the pid file {path} is a symbolic link: remove it or name the file itself"
    let = "let this user write there, or give another file with --pid-file"
    return f"cannot open the pid file {path}: {error.strerror}; {remedy(error, let)}"


def _check(path: str, fd: int) -> None:
    """Raises PidFileError for what is no file, and for what its owner could lock at any time."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise PidFileError(f"{path} is no regular file: remove it or give another with --pid-file")
    if status.st_uid not in {0, os.geteuid()}:
        raise PidFileError(
            f"the pid file {path} belongs to uid {status.st_uid}, who can keep it locked: remove it"
            " or give another with --pid-file"
        )


def _locked(path: str, fd: int) -> bool:
    """Locks the file; False if there are readers' locks on it and nothing else. Raises
    PidFileTaken for a daemon's."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):  # POSIX allows either
            raise PidFileError(f"cannot lock the pid file {path}: {error.strerror}") from error
        owner = _lock_owner(fd)
        if owner is not None:
            raise PidFileTaken(path, owner) from error
        return False
    return True


def _lock_owner(fd: int) -> Owner | None:
    """The process that holds the lock, None if none does that has the right to write.

    From the kernel, since its pid may not be written yet. A lock for reading, which is asked for
    here, is kept out by those for writing alone.
    """
    asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 1, 0)
    try:
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    except OSError:
        return Owner(0)
    if kind == fcntl.F_UNLCK:
        return None
    return Owner(pid if pid > 0 else 0)  # -1 is an open-file lock, 0 of another container


def _replaced(path: str, old_fd: int) -> PidFile | None:
    """Puts a locked file in the place of one that only readers have locked.

    None when that one is no longer there. What must stay true: of two daemons that start at the
    same time only one goes on. Those of proxyd take turns, by a lock that nobody else can have. One
    of libvirt's, which does not know that lock, may get hold of the old file in the meantime, if
    its readers let go. It then looks whether the file is still there, and we whether it has come:
    one of us sees the other.
    """
    try:
        turn = take_lock(f"{path}.lock")
        if turn is None:
            raise PidFileError(f"another daemon is just about to take the pid file {path}: wait")
        try:
            return _exchanged(path, old_fd)
        finally:
            turn.release()
    except OSError as error:
        raise PidFileError(
            f"the pid file {path} is locked by somebody who may only read it, and cannot be"
            f" replaced: {error.strerror}; remove it"
        ) from error


def _exchanged(path: str, old_fd: int) -> PidFile | None:
    aside, new = f"{path}.old", f"{path}.new"
    _remove(aside, new)  # of one that was killed here
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _UNTIL_LOCKED)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        _write_pid(new, fd)
        with suppress(FileNotFoundError):
            os.link(path, aside, follow_symlinks=False)
        if not _names(aside, old_fd):
            os.close(fd)
            return None
        os.rename(new, path)
        _give_way(path, aside, old_fd)
    except BaseException:
        os.close(fd)
        raise
    finally:
        _remove(aside, new)
    return PidFile(path, fd)


def _give_way(path: str, aside: str, old_fd: int) -> None:
    """To a daemon that has locked the old file before the new one was there, and believes in it."""
    owner = _lock_owner(old_fd)
    if owner is not None:
        os.rename(aside, path)
        raise PidFileTaken(path, owner)


def _remove(*paths: str) -> None:
    for each in paths:
        with suppress(FileNotFoundError):
            os.unlink(each)


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
