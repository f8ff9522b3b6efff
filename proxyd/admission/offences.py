"""Who breaks the protocol waits a moment before he is heard again.

No client of libvirt's does, so only those pay who connect again and again to do it: each time costs
proxyd, the daemon behind and the kernel more than it costs them, and all others the processors that
it takes. Only users of this host are remembered: an address of the network may be many.
"""

import time
from collections.abc import Callable
from typing import Final

from proxyd.admission.holder import Holder, Rank

_EACH_S: Final = 0.05
_LONGEST_S: Final = 1.0
_FORGOTTEN_S: Final = 10.0  # after the last one
_MOST: Final = 1024  # users who are remembered


class Offences:
    """Of each user how often, of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # How many and when the last one was; whoever's was longest ago comes first.
        self._seen: dict[Holder, tuple[int, float]] = {}

    def note(self, holder: Holder) -> None:
        """One more. Root and the daemon's own user are let off."""
        if holder.rank is not Rank.LOCAL:
            return
        count = self._of(holder)
        self._seen.pop(holder, None)
        if len(self._seen) >= _MOST:
            del self._seen[next(iter(self._seen))]
        self._seen[holder] = (count + 1, self._clock())

    def pause_s(self, holder: Holder) -> float:
        """How long the next client of this one waits."""
        return min(_LONGEST_S, _EACH_S * self._of(holder))

    def _of(self, holder: Holder) -> int:
        count, last = self._seen.get(holder, (0, 0.0))
        return count if self._clock() - last < _FORGOTTEN_S else 0
