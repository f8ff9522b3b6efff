"""Clients of the network that have not proven who they are: how many, and who makes way.

Those of TCP, of TLS in their handshake, and of TLS behind it are a crowd each. When one is full,
the next one takes the place of somebody who keeps us waiting: of the address that has the most in
the crowd, the one who does so for longest.
"""

from collections import Counter
from collections.abc import Callable

from proxyd.session.holder import Holder
from proxyd.session.place import Crowd, Place


class Strangers:
    """`limit` says how many a crowd may be; 0 stands for any number."""

    def __init__(self, limit: Callable[[Crowd], int]) -> None:
        self._limit = limit
        self._crowds: dict[Crowd, dict[Place, None]] = {}

    @property
    def count(self) -> int:
        return sum(map(len, self._crowds.values()))

    def join(self, place: Place, crowd: Crowd) -> None:
        place.crowd = crowd
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

    def silent(self, crowd: Crowd, now: float, newcomer: Holder | None = None) -> Place | None:
        """Who makes way, if anybody does; for a newcomer nobody whose address has fewer here."""
        members = self._crowds[crowd]
        silent = [place for place in members if place.is_silent(now)]
        if not silent:
            return None
        each = Counter(place.holder for place in members)
        most = max(silent, key=lambda place: (each[place.holder], place.waited_s(now)))
        return most if newcomer is None or each[most.holder] >= each[newcomer] else None
