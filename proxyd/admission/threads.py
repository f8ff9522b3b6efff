"""Threads that many share: each holder has a line of his own, and the lines are served in turn.

Whoever keeps a thread busy a thousand times delays others by one of these at the most.
"""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import trio

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SharedThreads(Generic[K]):
    """`most` of them at one time."""

    def __init__(self, most: int) -> None:
        self.busy = 0
        self.most = most
        self._limiter = trio.CapacityLimiter(most)  # never waited for
        self._lines: dict[K, deque[trio.Event]] = {}  # whose turn is next comes first

    async def run(self, key: K, function: Callable[[], T]) -> T:
        """What the function returns, or raises, in a thread."""
        await self._take(key)
        try:
            return await trio.to_thread.run_sync(function, limiter=self._limiter)
        finally:
            self._give_back()

    async def _take(self, key: K) -> None:
        if self.busy < self.most:
            self.busy += 1
            return
        turn = trio.Event()
        self._lines.setdefault(key, deque()).append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():  # at that very moment
                self._give_back()
            else:
                self._lines[key].remove(turn)
                if not self._lines[key]:
                    del self._lines[key]
            raise

    def _give_back(self) -> None:
        if not self._lines:
            self.busy -= 1
            return
        key = next(iter(self._lines))
        line = self._lines.pop(key)
        line.popleft().set()
        if line:
            self._lines[key] = line
