"""The lock that lets one process at a time start a daemon (docs/protocol/autostart.md, section 2).

It is the one of libvirt's clients, so that they and proxyd wait for each other: a POSIX lock on
byte 0 of a file that its owner removes. Such a lock is lost as soon as *any* descriptor of the
file is closed in this process, so a process must not try for one that it has already.

Everything here may block in a file system, but never waits for another process.
"""

import errno
import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_DIRECTORY_MODE: Final = 0o700
_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class StartLock:
    """A lock that is ours until `release`, which is due once, or until this process ends."""

    path: str
    _fd: int

    def release(self) -> None:
        """Remove the file and give up the lock, in this order: nobody else may own it yet."""
        try:
            with suppress(FileNotFoundError):
                os.unlink(self.path)
        finally:
            os.close(self._fd)


def take_lock(path: str) -> StartLock | None:
    """The lock, None while another process has it. Makes the directory. Raises OSError."""
    os.makedirs(os.path.dirname(path), mode=_DIRECTORY_MODE, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    try:
        _check_owner(path, fd)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        if _names(path, fd):
            return StartLock(path, fd)
    except OSError as error:
        if error.errno not in {errno.EAGAIN, errno.EACCES}:  # POSIX allows either
            os.close(fd)
            raise
    # Another's; or it was, and the owner has removed the file that we have opened.
    os.close(fd)
    return None


def _check_owner(path: str, fd: int) -> None:
    """Whoever has made the file can hold its lock for as long as he likes. Raises OSError."""
    if os.fstat(fd).st_uid != os.geteuid():
        raise OSError(errno.EPERM, "another user's file", path)


def _names(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
