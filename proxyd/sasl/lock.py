"""A lock among processes of one user, which nobody else can take or hold.

Whoever may open a file or a directory for reading may hold its flock, and keep all who wait for it.
So what is locked is a file of the lock's own, which only its owner can open. It is there for as
long as the lock is held.
"""

import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_MODE: Final = 0o600
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_LOOK_EVERY_S: Final = 0.05
# Whoever can put something else there must not choose what is opened, or keep us waiting for it.
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class NotLocked(Exception):
    """The lock cannot be had; the text says who may hold it and what to do."""


@contextmanager
def own_lock(path: Path, patience_s: float) -> Iterator[None]:
    """Held while the block lasts, or until this process ends. Raises NotLocked and OSError.

    Waits at most `patience_s`.
    """
    descriptor = _taken(path, time.monotonic() + patience_s)
    try:
        yield
    finally:
        # In this order: nobody else may hold the file that is removed.
        with suppress(OSError):  # what is left behind is no lock
            os.unlink(path)
        os.close(descriptor)


def _taken(path: Path, end: float) -> int:
    while True:
        descriptor = os.open(path, _FLAGS, _MODE)
        try:
            _check(path, os.fstat(descriptor))
            _wait(path, descriptor, end)
            if _names(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it has removed it


def _check(path: Path, status: os.stat_result) -> None:
    """Refuses a file that others can open, or have made for us to wait for."""
    owners = {0, os.geteuid(), path.parent.stat().st_uid}
    if stat.S_ISREG(status.st_mode) and status.st_uid in owners and not status.st_mode & _OTHERS:
        return
    raise NotLocked(
        f"{path} (uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}) may be held by"
        " others for as long as they like: remove it"
    )


def _wait(path: Path, descriptor: int, end: float) -> None:
    """Takes the lock before the end. A wait in the kernel could not be bounded."""
    pause = threading.Event()  # never set
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise NotLocked(
                    f"another process holds {path}: see which (fuser -v {path}), and wait for it"
                    " or end it"
                ) from None
            pause.wait(_LOOK_EVERY_S)
        else:
            return


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
