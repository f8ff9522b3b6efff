"""Turns: of each key so many at one time, and a line for the rest of that key.

Nobody waits in another's line. Where all together have a limit, too, the less is left of it the
less one key may have: always fewer than what is left, so that there is something for the next.
"""

from collections import Counter, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

import trio

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """`each` and `total` 0 mean no limit; `each` may be changed at any time."""

    def __init__(self, each: int, *, total: int = 0) -> None:
        self._each = each
        self._total = total
        self._held = Counter[K]()
        self._lines: dict[K, deque[trio.Event]] = {}
        self.held = 0  # of all keys

    def change(self, each: int) -> None:
        self._each = each
        self._go_on()

    def held_by(self, key: K) -> int:
        return self._held.get(key, 0)

    def take_now(self, key: K) -> bool:
        """Whether it is this one's turn at once; then it is to be given back."""
        if key in self._lines or not self._may(key):
            return False
        self._count(key)
        return True

    async def take(self, key: K) -> None:
        """Waits in the key's line. To be given back."""
        if self.take_now(key):
            return
        turn = trio.Event()
        line = self._lines.setdefault(key, deque())
        line.append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():  # at that very moment
                self.give_back(key)
            else:
                line.remove(turn)
                self._tidy(key)
            raise

    def give_back(self, key: K) -> None:
        self.held -= 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        self._go_on()

    def _may(self, key: K) -> bool:
        own = self.held_by(key)
        if self._each and own >= self._each:
            return False
        return not self._total or own < self._total - self.held

    def _count(self, key: K) -> None:
        self.held += 1
        self._held[key] += 1

    def _go_on(self) -> None:
        for key, line in list(self._lines.items()):
            while line and self._may(key):
                self._count(key)
                line.popleft().set()
            self._tidy(key)

    def _tidy(self, key: K) -> None:
        if not self._lines.get(key, True):
            del self._lines[key]
