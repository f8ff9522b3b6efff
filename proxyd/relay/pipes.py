"""Pipes for splicing: taken when a long frame is under way, given back empty."""

import contextlib
import fcntl
import os
from dataclasses import dataclass
from typing import Final

# About a stream packet. More gains nothing, and what a slow reader leaves in here counts.
PIPE_SIZE: Final = 262144
# A user beyond his share gets pipes of one page: copying is faster than those.
SMALLEST: Final = 65536
IDLE_LIMIT: Final = 8  # pipes kept for the next long frame


@dataclass(frozen=True, slots=True)
class Pipe:
    """Two descriptors and how much the kernel lets it hold."""

    read: int
    write: int
    size: int

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


class PipePool:
    """Used by one thread."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []

    def take(self) -> Pipe | None:
        """An empty pipe, or None when none worth having is to be had: copying works too."""
        if self._idle:
            return self._idle.pop()
        try:
            read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        pipe = Pipe(read, write, _sized(write))
        if pipe.size < SMALLEST:
            pipe.close()
            return None
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Takes an empty pipe back."""
        if len(self._idle) < IDLE_LIMIT:
            self._idle.append(pipe)
        else:
            pipe.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


def _sized(pipe: int) -> int:
    """Makes a pipe large if that is allowed; how much it holds."""
    # Beyond /proc/sys/fs/pipe-max-size or the user's share: the default size works too.
    with contextlib.suppress(OSError):
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    with contextlib.suppress(OSError):
        return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    return 0
