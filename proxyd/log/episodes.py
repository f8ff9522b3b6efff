"""What goes on for a while is one line in the log, however often it happens.

Whoever causes it chooses how often, and under how many names: both are bounded.
"""

import time
from collections.abc import Callable, Hashable
from typing import Final

_QUIET_S: Final = 60.0  # after which it is over, and news again
_MOST: Final = 64  # that go on at one time; what comes beyond is not told
_A_LOT: Final = 1_000_000


class Episodes:
    """Each is known by what happens, to whom, in whatever form."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # When each was seen last and how often; the one that was quiet for longest comes first.
        self._seen: dict[Hashable, tuple[float, int]] = {}

    def begins(self, what: Hashable) -> bool:
        """Whether this is news: it has not happened for a while."""
        return self.times(what) == 1

    def times(self, what: Hashable) -> int:
        """How often it has happened in this episode, with this time; a lot, where too many others
        go on."""
        now = self._clock()
        while self._seen and now - self._seen[longest := next(iter(self._seen))][0] > _QUIET_S:
            del self._seen[longest]
        _, times = self._seen.pop(what, (now, 0))
        if not times and len(self._seen) >= _MOST:
            return _A_LOT
        self._seen[what] = now, times + 1
        return times + 1
