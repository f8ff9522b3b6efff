"""Token buckets: how often each holder may do something, and who is over that.

A bucket holds `burst` tokens and gets `a_second` back. What is remembered of it is one number: when
it will be full again. Whoever has a full one is nobody to remember.

The table is bounded, and those who are counted in it may be many: a network of IPv6 has as many
addresses as it likes. So nothing that was taken is ever forgotten. Where the table is full, a
newcomer takes over the fullest bucket as it is. Then these hold, however many take turns:

* Nobody gets more than `burst` and `a_second` tokens a second. The bucket that somebody has lost
  was the fullest, so what he finds later is no fuller than his own would be.
* All together get no more than `most` holders may: as many buckets as that, and not one more.
* A newcomer is kept from his first token only while every one of `most` holders is over the rate.
"""

import heapq
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from proxyd.admission.holder import Holder, Rank

MOST: Final = 4096
_SHOWN_FOR_S: Final = 60.0
_MOST_SHOWN: Final = 64
_ROUNDING: Final = 1e-6  # of a token

K = TypeVar("K", bound=Hashable)


class Buckets(Generic[K]):
    """Of each key one. With `a_second` 0 there is no limit, and nothing is remembered."""

    def __init__(
        self,
        *,
        a_second: float = 0.0,
        burst: int = 1,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.a_second = a_second
        self.burst = burst
        self._most = most
        self._clock = clock
        self._full_at: dict[K, float] = {}
        # Of each key at least one time that is not later than the true one, and who came with it.
        self._order: list[tuple[float, int, K]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: K) -> bool:
        """One token, if there is one."""
        if not self.a_second:
            return True
        now = self._clock()
        bucket = key if key in self._full_at else self._fullest_of_all()
        owed = 0.0 if bucket is None else self._owed(self._full_at[bucket], now)
        if owed + 1 > self.burst + _ROUNDING:
            return False
        if bucket is not None and bucket != key:
            del self._full_at[bucket]
        self._set(key, now + (owed + 1) / self.a_second)
        return True

    def is_empty(self, key: K) -> bool:
        """Whether there is no token to take."""
        if not self.a_second:
            return False
        bucket = key if key in self._full_at else self._fullest_of_all()
        return bucket is not None and self.owed(bucket) + 1 > self.burst + _ROUNDING

    def owed(self, key: K) -> float:
        """How many tokens were taken and have not come back yet."""
        full_at = self._full_at.get(key)
        return 0.0 if full_at is None else self._owed(full_at, self._clock())

    def give_back(self, key: K, tokens: float = 1.0) -> None:
        """So many that were taken, before their time."""
        full_at = self._full_at.get(key)
        if full_at is None:
            return
        now = self._clock()
        owed = self._owed(full_at, now) - tokens
        if owed > _ROUNDING:
            self._set(key, now + owed / self.a_second)
        else:
            del self._full_at[key]

    def change(self, *, a_second: float, burst: int) -> None:
        """What was taken stays taken, as far as the new buckets hold as much."""
        now = self._clock()
        owed = {key: self._owed(at, now) for key, at in self._full_at.items()} if a_second else {}
        self.a_second, self.burst = a_second, burst
        self._full_at.clear()
        self._order.clear()
        for key, tokens in owed.items():
            if tokens > _ROUNDING:
                self._set(key, now + min(tokens, burst) / a_second)

    def _owed(self, full_at: float, now: float) -> float:
        return max(0.0, (full_at - now) * self.a_second)

    def _set(self, key: K, full_at: float) -> None:
        before = self._full_at.get(key)
        self._full_at[key] = full_at
        if before is None or full_at < before:
            if len(self._order) >= 2 * self._most:
                self._order = [(at, n, each) for n, (each, at) in enumerate(self._full_at.items())]
                heapq.heapify(self._order)
            self._push(full_at, key)

    def _push(self, full_at: float, key: K) -> None:
        self._pushed += 1  # of equals the first; keys have no order
        heapq.heappush(self._order, (full_at, self._pushed, key))

    def _fullest_of_all(self) -> K | None:
        """Whose bucket is, if a newcomer has to take over somebody's. Looks again at no more than
        were taken from since it was asked last."""
        if len(self._full_at) < self._most:
            return None
        while True:
            at, number, key = self._order[0]
            full_at = self._full_at.get(key)
            if full_at == at:
                return key
            if full_at is None or full_at < at:  # gone, or there is an earlier one
                heapq.heappop(self._order)
            else:
                heapq.heapreplace(self._order, (full_at, number, key))


class Over:
    """Who was refused of late, for people: so many of them, for a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: dict[str, float] = {}  # whoever was refused last comes last

    def note(self, name: str) -> None:
        if self._at.pop(name, None) is None and len(self._at) >= _MOST_SHOWN:
            del self._at[next(iter(self._at))]
        self._at[name] = self._clock()

    def names(self) -> list[str]:
        """The latest one first."""
        since = self._clock() - _SHOWN_FOR_S
        return [name for name, at in reversed(self._at.items()) if at > since]


class ConnectionRate:
    """How many connections a second each holder may begin. 0 is any number."""

    def __init__(
        self,
        a_second: float = 0.0,
        burst: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.over = Over(clock)
        self._buckets = Buckets[str](a_second=a_second, burst=burst, clock=clock)

    @property
    def a_second(self) -> float:
        return self._buckets.a_second

    @property
    def burst(self) -> int:
        return self._buckets.burst

    def change(self, *, a_second: float, burst: int) -> None:
        if (a_second, burst) != (self.a_second, self.burst):
            self._buckets.change(a_second=a_second, burst=burst)

    def admits(self, holder: Holder) -> bool:
        """Counts one more of this holder's. Root and the daemon's own user are let off."""
        if holder.rank is Rank.OWN or self._buckets.take(holder.name):
            return True
        self.over.note(holder.name)
        return False
