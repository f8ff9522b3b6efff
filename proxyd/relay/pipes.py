"""What a flow borrows for a long frame: pipes for splicing, taken when one is under way and given
back empty, and memory for a call that is held until it is whole."""

import contextlib
import fcntl
import os
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Final

from proxyd.wire.frame import MAX_FRAME

# About a stream packet. More gains nothing, and what a slow reader leaves in here counts.
PIPE_SIZE: Final = 262144
# A user beyond his share gets pipes of one page: copying is faster than those.
SMALLEST: Final = 65536
IDLE_LIMIT: Final = 8  # pipes kept for the next long frame
MOST: Final = 64  # as many of PIPE_SIZE as the kernel lets a user without privileges have
# Memory for calls that are longer than a flow's own buffer: two of the longest that may be. Calls
# longer than 4 MiB, the longest string, have not been seen.
MOST_HELD: Final = 2 * MAX_FRAME


@dataclass(frozen=True, slots=True)
class Pipe:
    """Two descriptors and how much the kernel lets it hold."""

    read: int
    write: int
    size: int

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


class HeldMemory:
    """At most `most` bytes, for as long as somebody else likes. Of several threads.

    So nobody gets more than is left for all others: some is left whoever comes.
    """

    def __init__(self, most: int = MOST_HELD) -> None:
        self._most = most
        self._of = Counter[str]()
        self._lock = threading.Lock()

    def lend(self, count: int, owner: str) -> bool:
        """Whether so many bytes may be held for `owner`; then they are to be given back."""
        with self._lock:
            if self._of[owner] + count > self._most - self._of.total():
                return False
            self._of[owner] += count
            return True

    def owe(self, count: int, owner: str) -> None:
        """So many bytes are held already, for a session that has moved here."""
        with self._lock:
            self._of[owner] += count

    def take_back(self, count: int, owner: str) -> None:
        with self._lock:
            self._of[owner] -= count
            if not self._of[owner]:
                del self._of[owner]  # addresses are many


class PipePool:
    """Used by one thread. There are at most `most` pipes, two descriptors each, and at most
    `most_held` bytes of memory; or it has its share of a `memory` that others use as well.

    Both are held for as long as somebody else likes. So nobody gets one who has as many as are left
    for all others: some are left whoever comes, and a single user has half of them at the most.
    """

    def __init__(
        self, most: int = MOST, *, most_held: int = MOST_HELD, memory: HeldMemory | None = None
    ) -> None:
        self._most = most
        self._idle: list[Pipe] = []
        self._held = Counter[str]()
        self.memory = memory or HeldMemory(most_held)

    def of(self, owner: str) -> "PipeShare":
        return PipeShare(self, owner)

    def take(self, owner: str) -> Pipe | None:
        """An empty pipe, or None when none worth having is to be had: copying works too."""
        if self._held[owner] >= self._most - self._held.total():
            return None
        pipe = self._idle.pop() if self._idle else _made()
        if pipe is not None:
            self._held[owner] += 1
        return pipe

    def give_back(self, pipe: Pipe, owner: str) -> None:
        """Takes an empty pipe back."""
        self._released(owner)
        if len(self._idle) < min(IDLE_LIMIT, self._most - self._held.total()):
            self._idle.append(pipe)
        else:
            pipe.close()

    def throw_away(self, pipe: Pipe, owner: str) -> None:
        self._released(owner)
        pipe.close()

    def _released(self, owner: str) -> None:
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]  # addresses are many

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


@dataclass(frozen=True, slots=True)
class PipeShare:
    """The pool as those see it who take for one owner."""

    _pool: PipePool
    _owner: str

    def take(self) -> Pipe | None:
        return self._pool.take(self._owner)

    def give_back(self, pipe: Pipe) -> None:
        self._pool.give_back(pipe, self._owner)

    def throw_away(self, pipe: Pipe) -> None:
        self._pool.throw_away(pipe, self._owner)

    def lend(self, count: int) -> bool:
        return self._pool.memory.lend(count, self._owner)

    def owe(self, count: int) -> None:
        self._pool.memory.owe(count, self._owner)

    def take_back(self, count: int) -> None:
        self._pool.memory.take_back(count, self._owner)


def _made() -> Pipe | None:
    try:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    pipe = Pipe(read, write, _sized(write))
    if pipe.size < SMALLEST:
        pipe.close()
        return None
    return pipe


def _sized(pipe: int) -> int:
    """Makes a pipe large if that is allowed; how much it holds."""
    # Beyond /proc/sys/fs/pipe-max-size or the user's share: the default size works too.
    with contextlib.suppress(OSError):
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    with contextlib.suppress(OSError):
        return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    return 0
