"""Who gets a place, and whose place goes to somebody else.

Places are counted by their holders (holder.py), and how many there are stands in capacity.py.
Where libvirt would let a client wait, it waits here as well: a listener stops accepting while
nobody at all could be let in (`room`), and whoever was accepted and finds no place stands at the
doorstep (doorstep.py). What must stay true:

* Whoever comes by the network gets one of max_clients or none; a user of this host who holds few
  gets a spare one beyond them, root a reserved one beyond those.
* Nobody waits for the proof of strangers who are not of his own kind: crowds of the network have a
  limit each (strangers.py), and so has each user of this host.
* When places are short, who is silent makes way: of the holder with the most places, the one for
  whom we have been waiting for longest, if the newcomer's holder has fewer. If there is none, a
  stranger of the network does, for anybody. An open session, a client of this host about whom
  something is being decided, and root make way for nobody.

Unlike libvirt, the log says that there is no room, once per episode: from then until nobody waits.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from proxyd.admission.capacity import Capacity
from proxyd.admission.holder import Holder, Rank
from proxyd.admission.holdings import Holdings
from proxyd.admission.logins import Logins
from proxyd.admission.place import Crowd, Place, needs_proof
from proxyd.admission.rates import ConnectionRate
from proxyd.admission.strangers import Strangers
from proxyd.admission.turns import Turns
from proxyd.config.listeners import Door
from proxyd.config.transports import Transport
from proxyd.invocation import pasteable

_LOOK_EVERY_S: Final = 0.1  # whether somebody has become silent enough to make way
# Who is closed to let in another may come again at once: beyond this rate he waits in the backlog.
_PACE_S: Final = 0.001

log = logging.getLogger("rpc.netserver")


class Admission:
    """Limits may be changed at any time. `max_anonymous` and `most_each` 0 mean any number.

    `capacity_of` says what follows from max_clients; without it nobody gets more than those.
    """

    def __init__(
        self,
        *,
        max_clients: int,
        max_anonymous: int,
        most_each: int = 0,
        capacity_of: Callable[[int], Capacity] = lambda most: Capacity(max_clients=most),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_anonymous = max_anonymous
        self.most_each = most_each
        self.clients = 0
        self.callers = 0  # accepted, without a place
        self.overrun = self.crowded = self.uneven = False
        self.closed = self.draining = False
        self.held = False  # another process takes over: who has no place here gets one there
        self.changed = trio.Event()  # set when a client comes or goes, and then replaced
        self.on_change: Callable[[], None] = _nobody_listens  # called at once, for each of them
        self.on_room: Callable[[], None] = _nobody_listens  # somebody may find a place now
        self.capacity = capacity_of(max_clients)
        self._capacity_of = capacity_of
        self._clock = clock
        self.rate = ConnectionRate()
        self.logins = Logins()
        self.holdings = Holdings()
        self.turns = Turns[Holder](max_anonymous)
        self._strangers = Strangers(self._most_of)
        self._parked = trio.lowlevel.ParkingLot()
        self._standing = Counter[Transport]()
        self._told = set[Transport]()  # whose episode goes on

    @property
    def max_clients(self) -> int:
        return self.capacity.max_clients

    @property
    def anonymous(self) -> int:
        """Who are proving who they are, by all ways in."""
        return self.turns.held + self._strangers.count

    @property
    def standing(self) -> int:
        """Who have something to say and no place."""
        return self._standing.total()

    def change(self, *, max_clients: int, max_anonymous: int, most_each: int | None = None) -> None:
        """New limits; nobody who is in is sent away."""
        self.capacity = self._capacity_of(max_clients)
        self.max_anonymous = max_anonymous
        self.most_each = self.most_each if most_each is None else most_each
        self.turns.change(max_anonymous)
        self._let_in()

    # Places

    def has_share(self, holder: Holder) -> bool:
        """Whether one more of this holder's is within what one may have."""
        return not self.most_each or self.holdings.connections(holder) < self.most_each

    def admit(self, holder: Holder, door: Door) -> Place | None:
        """A place, if need be that of somebody who makes way; None when there is none now."""
        if self.closed or self.draining or self.held:
            return None
        now, leaver = self._clock(), None
        anonymous = needs_proof(holder, door)
        crowd = _crowd(door.transport) if anonymous else None
        if crowd is not None and self._strangers.is_full(crowd):
            leaver = self._strangers.displaced(crowd, now, holder)
            if leaver is None:
                return None
        elif self.clients >= self.max_clients:
            leaver = self.holdings.squatter(holder, now)
            if leaver is None and self.clients >= self._limit(holder):
                leaver = self._strangers.displaced_of_all(now, holder)
                if leaver is None:
                    return None
        if leaver is not None:
            self._evict(leaver, now)
        place = self.seat(holder, anonymous=anonymous)
        if crowd is not None:
            self._strangers.join(place, crowd)
        elif anonymous:
            place.has_turn = self.turns.take_now(holder)
        return place

    def has_precedence(self, holder: Holder) -> bool:
        """Whether there are places that are kept for such as this one."""
        return self._limit(holder) > self.max_clients

    def might_admit(self, transport: Transport) -> bool:
        """Whether to try `admit` with somebody is worth it; it is where this cannot tell, and while
        he would only be told why not."""
        crowd = None if self.draining else _crowd(transport)
        if crowd is None or not self._strangers.is_full(crowd):
            return True
        return self._strangers.displaced(crowd, self._clock()) is not None

    def seat(self, holder: Holder, *, anonymous: bool = False) -> Place:
        """A place, for whom the caller has found room."""
        place = Place(holder, self._clock, anonymous=anonymous)
        self.clients += 1
        self.holdings.add(place)
        self._tell()
        return place

    async def leave_handshake(self, place: Place) -> None:
        """Waits until one whose handshake is done may go on to prove who it is."""
        if place.crowd is not None:  # else it has made way meanwhile
            await self._go_behind_handshakes(place, place.crowd.transport)

    def step_aside(self, place: Place) -> None:
        """It waits for a time of its own: until it steps back it keeps no other one from proving
        who he is."""
        self._needs_proof_no_more(place)
        self._let_in()

    async def step_back(self, place: Place, transport: Transport) -> None:
        """Waits until it may go on to prove who it is."""
        if place.gone:
            return
        if transport.traits.by_network:
            await self._go_behind_handshakes(place, transport)
        else:
            await self.turn(place)

    def needs_turn(self, place: Place) -> bool:
        """Whether it waits, unread, until others of its user have proven who they are."""
        return place.anonymous and place.crowd is None and not place.has_turn

    async def turn(self, place: Place) -> None:
        """Waits for it."""
        await self.turns.take(place.holder)
        if place.gone:  # at that very moment
            self.turns.give_back(place.holder)
        else:
            place.has_turn = True

    def heard(self, place: Place) -> None:
        """A whole call has come: it was not silent."""
        place.heard()
        if not place.gone:
            self.holdings.heard(place)

    def opened(self, place: Place) -> None:
        """Its session is open: from now on it makes way for nobody."""
        if not place.gone:
            self.holdings.opened(place)

    def proved(self, place: Place) -> None:
        """Who it is, is proven; saying so twice is harmless."""
        if place.anonymous:
            place.anonymous = False
            self._needs_proof_no_more(place)
            self._let_in()

    def left(self, place: Place) -> None:
        """Its place is free; saying so twice is harmless."""
        if place.gone:
            return
        place.gone = True
        self.clients -= 1
        self.holdings.remove(place)
        self._needs_proof_no_more(place)
        self._tell()
        self._let_in()

    # Callers, who have no place yet

    def called(self, holder: Holder) -> None:
        self.holdings.called(holder)
        self.callers += 1
        if self.callers == 1:
            self.on_change()

    def no_caller(self, holder: Holder) -> None:
        """That one has a place now, or is gone."""
        self.holdings.no_caller(holder)
        self.callers -= 1
        if not self.callers:
            self.on_change()

    def stands(self, transport: Transport) -> None:
        """A caller has something to say, and there is no place for it."""
        self._standing[transport] += 1
        self._say_full(transport)

    def stands_no_more(self, transport: Transport) -> None:
        self._standing[transport] -= 1

    def crowd_doorstep(self, *, overrun: bool, crowded: bool, uneven: bool = False) -> None:
        """How it is at the doorstep. Overrun: somebody from the network has to go for each one that
        comes. Crowded: and all of them have something to say. Uneven: an address has several."""
        if self.crowded and (uneven or not crowded):
            self._parked.unpark_all()
        self.overrun, self.crowded, self.uneven = overrun, crowded, uneven

    # Listeners

    def has_room(self, transport: Transport) -> bool:
        """Whether anybody might be let in, or find room at the doorstep."""
        if self.closed:
            return False
        if self.draining:
            return True  # to be told so
        if not transport.traits.by_network:
            return self.clients < self.capacity.places
        if self.clients < self.max_clients or not self.crowded:
            return True
        # One address may have filled both. It makes way for others, but they have to be seen first.
        return self.uneven and self._strangers.count > 0

    async def room(self, transport: Transport) -> None:
        """Returns at once, or when there is some."""
        if transport.traits.by_network and self.overrun:
            await trio.sleep(_PACE_S)
        while not self.has_room(transport):
            if not self.closed:
                self._say_full(transport)
            await self._parked.park()

    def close(self) -> None:
        """From this moment on nobody is let in; who comes stays in the kernel's backlog.

        Cancelling a listener's task is not enough: one that has been told of a client already
        would still accept it, and then nobody would serve it.
        """
        self.closed = True

    def drain(self, *, on: bool) -> None:
        """While it is on nobody gets a place, and who comes is to be told why; whoever has one
        keeps it. Those who stand at the doorstep learn of it now."""
        self.draining = on
        self._tell()
        self._let_in()

    def hold(self, *, on: bool) -> None:
        """While it is on nobody gets a place, and nobody is told so: places that become free by
        sessions that move are not free."""
        self.held = on
        self._let_in()

    async def wait_change(self) -> None:
        """Returns when a client has come or gone since the call."""
        await self.changed.wait()

    def nobody_waits(self, transport: Transport) -> None:
        """A listener found its backlog empty: an episode, if there was one, is over."""
        if transport not in self._told or self._standing[transport] or not self.has_room(transport):
            return
        self._told.discard(transport)
        log.info(
            "nobody waits any more by %s: %d clients are connected", transport.name, self.clients
        )

    # How it is done

    def _limit(self, holder: Holder) -> int:
        """Until how many clients there are this one comes in."""
        match holder.rank:
            case Rank.OWN:
                return self.capacity.places
            case Rank.LOCAL if self.holdings.places(holder) < self.capacity.few:
                return self.max_clients + self.capacity.spare
            case _:
                return self.max_clients

    def _most_of(self, crowd: Crowd) -> int:
        return self.capacity.handshakes if crowd.shaking_hands else self.max_anonymous

    def _evict(self, place: Place, now: float) -> None:
        why = place.reproach(now)
        self.left(place)
        place.end(f"{why}, and its place was needed")

    async def _go_behind_handshakes(self, place: Place, transport: Transport) -> None:
        behind = Crowd(transport, shaking_hands=False)
        while self._strangers.is_full(behind):
            now = self._clock()
            leaver = self._strangers.displaced(behind, now, place.holder)
            if leaver is not None:
                self._evict(leaver, now)
                break
            with trio.move_on_after(_LOOK_EVERY_S):
                await self._parked.park()
        if not place.gone:
            self._strangers.leave(place)
            self._strangers.join(place, behind)
            self._let_in()

    def _needs_proof_no_more(self, place: Place) -> None:
        self._strangers.leave(place)
        if place.has_turn:
            place.has_turn = False
            self.turns.give_back(place.holder)

    def _say_full(self, transport: Transport) -> None:
        if transport in self._told or self.draining or self.held:
            return
        self._told.add(transport)
        crowd = _crowd(transport)
        strangers = f", {self._strangers.said(crowd)}" if crowd is not None else ""
        log.warning(
            "no room for more clients by %s: %d of %d are connected%s; others wait (see"
            " max_clients, max_anonymous_clients; %s shows who holds the places)",
            transport.name,
            self.clients,
            self.max_clients,
            strangers,
            pasteable("proxyd status"),
        )

    def _let_in(self) -> None:
        self._parked.unpark_all()
        self.on_room()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()
        self.on_change()


def _crowd(transport: Transport) -> Crowd | None:
    """Where strangers are counted who come by it; users of this host have their turns instead."""
    traits = transport.traits
    return Crowd(transport, shaking_hands=traits.shakes_hands) if traits.by_network else None


def _nobody_listens() -> None:
    """Until somebody does."""
