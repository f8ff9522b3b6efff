"""Who fails again and again waits longer each time.

    failure    1      2     3    4    5    6 and on
    pause   0.25 s  0.5 s  1 s  2 s  4 s    8 s

Pauses of one key add up: each begins where the one before ends, so that who fails in a hundred
places at one time waits as long as who does it in one. A minute after the last one all is
forgotten.
"""

import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, NamedTuple, TypeVar

from proxyd.admission.rates import MOST

FIRST_S: Final = 0.25
LONGEST_S: Final = 8.0
_DOUBLED: Final = 5  # times, from the first to the longest
_FORGOTTEN_S: Final = 60.0
_FARTHEST_S: Final = 60.0  # however many there were

K = TypeVar("K", bound=Hashable)


class _Pause(NamedTuple):
    failures: int
    until: float


class Pauses(Generic[K]):
    """Of so many keys; who failed longest ago makes way for the next one."""

    def __init__(self, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._of: dict[K, _Pause] = {}  # who has failed last comes last

    def __len__(self) -> int:
        return len(self._of)

    def until(self, key: K) -> float:
        """When the pause of this one ends, or has ended."""
        return self._state(key).until

    def failures(self, key: K) -> int:
        """How many are not forgotten."""
        return self._state(key).failures

    def lengthen(self, key: K) -> float:
        """One more failure; returns when its pause ends."""
        now = self._clock()
        failures, before = self._state(key)
        pause_s = min(LONGEST_S, FIRST_S * (1 << min(failures, _DOUBLED)))
        until = min(max(now, before) + pause_s, now + _FARTHEST_S)
        if self._of.pop(key, None) is None and len(self._of) >= self._most:
            del self._of[next(iter(self._of))]
        self._of[key] = _Pause(failures + 1, until)
        return until

    def shorten(self, key: K, failures: int) -> None:
        """So many are forgiven. As long as others are left, a pause that has begun goes on."""
        state = self._state(key)
        if key not in self._of:
            return
        if state.failures > failures:
            self._of[key] = _Pause(state.failures - failures, state.until)
        else:
            del self._of[key]

    def clear(self) -> None:
        self._of.clear()

    def _state(self, key: K) -> _Pause:
        state = self._of.get(key)
        if state is None or self._clock() >= state.until + _FORGOTTEN_S:
            return _Pause(0, 0.0)
        return state
