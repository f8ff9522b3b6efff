"""Clients of the network that have not proven who they are: how many, and who makes way.

Those of TCP, of TLS in their handshake, and of TLS behind it are a crowd each. When one is full,
the next one takes the place of somebody who keeps us waiting, or who had time enough to prove
something: he may send a byte of his hello whenever we are about to wait for it, or ask for the
mechanisms again and again, and is never silent. It is one of the address that has the most in the
crowd. All crowds make way when no place is left at all.
"""

from collections import Counter
from collections.abc import Callable, Collection

from proxyd.admission.holder import Holder
from proxyd.admission.place import Crowd, Place


class Strangers:
    """`limit` says how many a crowd may be; 0 stands for any number."""

    def __init__(self, limit: Callable[[Crowd], int]) -> None:
        self._limit = limit
        self._crowds: dict[Crowd, dict[Place, None]] = {}

    @property
    def count(self) -> int:
        return sum(map(len, self._crowds.values()))

    def join(self, place: Place, crowd: Crowd) -> None:
        place.join(crowd)
        self._crowds.setdefault(crowd, {})[place] = None

    def leave(self, place: Place) -> None:
        if place.crowd is not None:
            del self._crowds[place.crowd][place]
            place.crowd = None

    def is_full(self, crowd: Crowd) -> bool:
        limit = self._limit(crowd)
        return 0 < limit <= len(self._crowds.get(crowd, ()))

    def said(self, crowd: Crowd) -> str:
        """How many there are, for the log."""
        doing = "in their handshake" if crowd.shaking_hands else "unauthenticated"
        limit = self._limit(crowd) or "any number"
        return f"{len(self._crowds.get(crowd, ()))} of {limit} {doing}"

    def displaced(self, crowd: Crowd, now: float, newcomer: Holder | None = None) -> Place | None:
        """Who makes way in this crowd, if anybody does; for a newcomer nobody whose address has
        fewer here, or as many and is not silent."""
        return _displaced(self._crowds[crowd], now, newcomer)

    def displaced_of_all(self, now: float, newcomer: Holder) -> Place | None:
        """The same of all crowds together. In them a user of this host has nobody."""
        if not self.count:
            return None
        everybody = [place for crowd in self._crowds.values() for place in crowd]
        return _displaced(everybody, now, newcomer)


def _displaced(members: Collection[Place], now: float, newcomer: Holder | None) -> Place | None:
    each = Counter(place.holder for place in members)
    own = 0 if newcomer is None else each[newcomer]
    found = (
        place
        for place in members
        if (each[place.holder] >= own and place.is_silent(now))
        or (each[place.holder] > own and place.is_overdue(now))
    )
    # They are in the order in which they came, and of equals the first one is taken.
    return max(found, key=lambda place: (each[place.holder], place.waited_s(now)), default=None)
