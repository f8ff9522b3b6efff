"""What each holder has: places, connections that have none yet, and who of his is silent."""

from collections import Counter

from proxyd.admission.holder import Holder, Rank
from proxyd.admission.place import Place


class _Holding:
    """`unopened` are in the order in which we began to wait for them."""

    __slots__ = ("callers", "places", "unopened")

    def __init__(self) -> None:
        self.places = 0
        self.callers = 0
        self.unopened: dict[Place, None] = {}

    def silent(self, now: float) -> Place | None:
        return next((place for place in self.unopened if place.is_silent(now)), None)


class Holdings:
    """Who holds nothing any more is forgotten: addresses are many."""

    def __init__(self) -> None:
        self._of: dict[Holder, _Holding] = {}

    def places(self, holder: Holder) -> int:
        holding = self._of.get(holder)
        return holding.places if holding else 0

    def connections(self, holder: Holder) -> int:
        """With those that have no place yet."""
        holding = self._of.get(holder)
        return holding.places + holding.callers if holding else 0

    def largest(self, most: int) -> list[tuple[str, int]]:
        """So many holders with the most places, and how many those are."""
        found = Counter({holder.name: holding.places for holder, holding in self._of.items()})
        return [(name, places) for name, places in found.most_common(most) if places]

    def squatter(self, newcomer: Holder, now: float) -> Place | None:
        """Whose place goes to a newcomer: somebody's who is silent, and whose holder would still
        not have fewer than the newcomer's."""
        own = self.places(newcomer)
        larger = [
            holding
            for holder, holding in self._of.items()
            if holding.unopened and holding.places > own + 1 and holder.rank is not Rank.OWN
        ]
        larger.sort(key=lambda holding: holding.places, reverse=True)
        return next(filter(None, (holding.silent(now) for holding in larger)), None)

    def add(self, place: Place) -> None:
        holding = self._of.setdefault(place.holder, _Holding())
        holding.places += 1
        holding.unopened[place] = None

    def heard(self, place: Place) -> None:
        """It is not silent: of its holder's it is now the last to make way."""
        unopened = self._of[place.holder].unopened
        if place in unopened:
            del unopened[place]
            unopened[place] = None

    def opened(self, place: Place) -> None:
        """It makes way for nobody from here on."""
        self._of[place.holder].unopened.pop(place, None)

    def remove(self, place: Place) -> None:
        holding = self._of[place.holder]
        holding.places -= 1
        holding.unopened.pop(place, None)
        self._tidy(place.holder)

    def called(self, holder: Holder) -> None:
        self._of.setdefault(holder, _Holding()).callers += 1

    def no_caller(self, holder: Holder) -> None:
        self._of[holder].callers -= 1
        self._tidy(holder)

    def _tidy(self, holder: Holder) -> None:
        holding = self._of[holder]
        if not holding.places and not holding.callers:
            del self._of[holder]
