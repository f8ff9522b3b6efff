"""How many messages of one kind are written: as many as work makes, not as many as a flood can.

Every connection that a stranger opens and spoils is a line in the log, and he can spoil thousands a
second: 50 GB a day on the disk that all others log to. So each kind of message, which is a place in
the program that logs, has a store that every message takes from and that fills up steadily. It is
large: what a busy host does in a burst is written in full. A kind that is out of store costs no
other kind a line, and what is left out is counted and told of.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

MOST_AT_ONCE: Final = 10_000
A_SECOND: Final = 300  # as the journal's own default, of a whole service


@dataclass(slots=True)
class _Store:
    left: float
    filled: float  # the clock when that was so


class LogRate:
    """What each kind has left. Two threads at once may take one message too many."""

    def __init__(self, most_at_once: int = MOST_AT_ONCE, a_second: float = A_SECOND) -> None:
        self._most = most_at_once
        self._a_second = a_second
        self._stores: dict[Hashable, _Store] = {}

    def admits(self, kind: Hashable, now: float) -> bool:
        """Takes one message of this kind, if there is one left. `now` in seconds of any clock."""
        store = self._stores.get(kind)
        if store is None:
            store = self._stores[kind] = _Store(self._most, now)
        left = min(self._most, store.left + (now - store.filled) * self._a_second)
        admitted = left >= 1
        store.left, store.filled = left - admitted, now
        return admitted
