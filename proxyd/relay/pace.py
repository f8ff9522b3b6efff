"""How many calls a second the sessions of one client identity may make together. Pure.

A bucket of a second's calls: who has been quiet may make so many at once. What one read brings
beyond that is a debt, and whoever has one is not read until it is paid, nor is who comes anew.
Nothing is refused. As long as nobody owes more than ten minutes, which is the longest debt, in any
time no more calls go on than the rate allows, a second's, and those of one read of each session.
"""

import threading
from typing import Final

_SECOND_NS: Final = 1_000_000_000

# One read holds 2,340 calls at most, of which the slowest rates would make hours.
_LONGEST_DEBT_NS: Final = 600 * _SECOND_NS


class Pace:
    """Times are CLOCK_MONOTONIC. Several relay threads may charge it."""

    __slots__ = ("__weakref__", "_call_ns", "_full_ns", "_lock")

    def __init__(self, calls_per_s: float) -> None:
        """`calls_per_s` is more than 0."""
        self._lock = threading.Lock()
        self._full_ns = 0  # when the bucket is full again
        self._call_ns = 0
        self.change(calls_per_s)

    def change(self, calls_per_s: float) -> None:
        """Another rate from now on. What is owed stays, in time."""
        self._call_ns = max(1, round(_SECOND_NS / calls_per_s))

    def is_full(self, now_ns: int) -> bool:
        """Whether nothing of it is owed: as good as a new one."""
        return self._full_ns <= now_ns

    def charge(self, calls: int, now_ns: int) -> int:
        """Takes so many calls; returns when whoever made them may be read again: now, or later."""
        with self._lock:
            full_ns = max(self._full_ns, now_ns) + calls * self._call_ns
            # The bucket is empty a second before it is full, and has room for one call at least.
            room_ns = max(_SECOND_NS, self._call_ns)
            self._full_ns = min(full_ns, now_ns + room_ns + _LONGEST_DEBT_NS)
            return max(now_ns, self._full_ns - room_ns)
