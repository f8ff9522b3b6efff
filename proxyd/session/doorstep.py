"""The doorstep: callers wait here who were accepted and have no place yet.

Everybody from the network begins here, and gets a place when the first byte has come: one that
stays silent costs a descriptor and a few hundred bytes, no task, no TLS, and nobody's place. Users
of this host are known at accept; they stand here only when there is no place for them.

When it is full somebody makes way for the next one, so that accepting never stops for those who
have nothing to say: first of those that are silent, then of those that wait for a place, each time
one of the holder that has the most here. Places go to the holder first that has the fewest.

One task looks after all of them (`run`), with an epoll of its own: a task for each would cost more
than all the rest of it.
"""

import contextlib
import heapq
import logging
import math
import select
import socket
from collections.abc import Callable, Iterator
from typing import Final

import trio

from proxyd.admission.admission import Admission
from proxyd.config.transports import BY_NETWORK, Transport
from proxyd.endpoint.couriers import COURIERS
from proxyd.log.episodes import Episodes
from proxyd.session.line import Caller, Line

_LOOK_EVERY_S: Final = 0.1  # whether somebody has become silent enough to make way
_PLACES_EVERY_S: Final = 0.005  # however often one becomes free: to find out whose turn it is costs
_AT_ONCE: Final = 16  # callers; then others of the control plane have their turn
_COMES: Final = select.EPOLLIN | select.EPOLLRDHUP
_GONE: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

log = logging.getLogger("rpc.netserver")


class Doorstep:
    """`enter` gives a caller a place and serves it, or says that there is none.

    `timeout_s` is how long one may be silent.
    """

    def __init__(
        self,
        admission: Admission,
        enter: Callable[[Caller], bool],
        *,
        timeout_s: Callable[[], float],
        episodes: Episodes,
    ) -> None:
        self.network = Line()
        self.standing = {transport: Line() for transport in Transport}
        self._admission = admission
        self._enter = enter
        self._timeout_s = timeout_s
        self._episodes = episodes
        self._epoll = select.epoll()
        self._watched: dict[int, Caller] = {}
        self._somebody = trio.Event()
        self._pause = trio.CancelScope()
        self._more = False  # places may be free
        self._given_at = -math.inf  # when they were last given away
        self._looked_at = -math.inf  # whose patience is over
        admission.on_room = self._wake

    def call(self, caller: Caller) -> None:
        """Somebody from the network."""
        if self._has_spoken(caller) and self._need_not_stand and self._enter(caller):
            return
        if not self._make_way(caller) or not self._watch(caller, _COMES):
            COURIERS.close(caller.sock)
            return
        self._admission.called(caller.holder)
        self.network.add(caller)
        self._reckon()
        self._somebody.set()

    def stand(self, caller: Caller) -> Caller | None:
        """Somebody of this host for whom there is no place.

        Returns who is to be told that there is no room even here, which may be the same one.
        """
        line = self._standing_by(caller)
        loser = None
        full = line.count >= self._admission.capacity.standing
        if full and (loser := line.loser(caller.holder)) is None:
            return caller
        if not self._watch(caller, _GONE):
            return caller
        if loser is not None:
            self._take_away(loser)
        self._admission.called(caller.holder)
        self._stand(caller)
        self._somebody.set()
        self._wake()
        return loser

    async def run(self) -> None:
        """Looks after them, and closes them at the end."""
        try:
            while True:
                await self._somebody.wait()
                await self._wait()
                self._look()
                if not self._admission.callers:
                    self._somebody = trio.Event()
        finally:
            self.close()
            self._epoll.close()

    def close(self) -> None:
        """Who has no place now gets none any more."""
        for line in (self.network, *self.standing.values()):
            for caller in line:
                self._drop(caller)

    def hand_on(self) -> Iterator[Caller]:
        """All who are here, one after the other, for another process: nothing of theirs was read.
        Who takes one owns its socket."""
        for line in (*self.standing.values(), self.network):
            for caller in line:
                self._take_away(caller)
                yield caller

    def _wake(self) -> None:
        if self._admission.callers:
            self._more = True
            soon = trio.current_time() + _PLACES_EVERY_S
            self._pause.deadline = min(self._pause.deadline, soon)

    async def _wait(self) -> None:
        """Until there is something to be done, or it is time to look."""
        with trio.move_on_after(_PLACES_EVERY_S if self._more else _LOOK_EVERY_S) as self._pause:
            try:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            except OSError:  # no memory to watch it; the next look tells
                await trio.sleep(_LOOK_EVERY_S)

    def _look(self) -> None:
        for descriptor, events in self._epoll.poll(0, _AT_ONCE):
            caller = self._watched[descriptor]
            if not caller.spoken and self._has_spoken(caller):
                self._speaks(caller, gone=bool(events & _GONE))
            else:
                log.debug("%s: gone before it had a place", caller)
                self._drop(caller)
        now = trio.current_time()
        if now - self._given_at >= _PLACES_EVERY_S:
            self._given_at, self._more = now, False
            self._give_places()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._end_patience(now)

    def _speaks(self, caller: Caller, *, gone: bool) -> None:
        """The first byte is there. While others wait for places it waits with them."""
        if self._need_not_stand and self._enter(caller):
            self._take_away(caller)
            return
        self._stand(caller)
        self._wake()
        if gone:
            self._unwatch(caller)  # it has said all that it has to say, and may still be answered
        else:
            with contextlib.suppress(OSError):  # no memory: the next look takes it for gone
                self._epoll.modify(caller.descriptor, _GONE)

    def _give_places(self) -> None:
        """One to each holder, root's first, then theirs that have the fewest, by whatever way they
        come: nobody's are taken by those of another line before it is his turn."""
        places = self._admission.holdings.places
        open_to = {
            transport
            for transport, line in self.standing.items()
            if line.count and self._admission.might_admit(transport)
        }
        firsts = heapq.nsmallest(
            _AT_ONCE,
            (first for transport in open_to for first in self.standing[transport].first_of_each()),
            key=lambda each: (-each.holder.rank, places(each.holder), each.since),
        )
        self._more = self._serve(firsts) or self._more
        for transport, line in self.standing.items():
            if not line.count:
                self._admission.nobody_waits(transport)

    def _serve(self, callers: list[Caller]) -> bool:
        """Whether all found a place. For whom there is none, there is none for those behind him in
        the same line."""
        full = set[Transport]()
        for caller in callers:
            if caller.door.transport in full:
                continue
            if self._enter(caller):
                self._take_away(caller)
            else:
                full.add(caller.door.transport)
        return bool(callers) and not full

    def _end_patience(self, now: float) -> None:
        seconds = self._timeout_s()
        since = now - seconds
        for caller in self.network:
            if not caller.spoken and caller.since <= since:
                news = self._episodes.begins((caller.holder, "silent"))
                level = logging.WARNING if news else logging.INFO
                log.log(level, "%s: sent nothing within %g s", caller, seconds)
                self._drop(caller)

    def _make_way(self, newcomer: Caller) -> bool:
        """Whether there is room for one more caller of the network."""
        if not self._is_full():
            return True
        line, holder = self.network, newcomer.holder
        loser = line.loser(holder) or line.longest_silent(holder)
        if self._episodes.begins("callers"):
            log.warning(
                "more callers from the network than there is room for: some of those are closed who"
                " have the most (%s was the first of them)",
                loser or newcomer,
            )
        if loser is not None:
            self._drop(loser)
        return loser is not None

    def _is_full(self) -> bool:
        return self.network.count >= self._admission.capacity.callers

    def _reckon(self) -> None:
        silent = self.network.count - self._waiting_by_network()
        full = self._is_full()
        self._admission.crowd_doorstep(
            overrun=full, crowded=full and not silent, uneven=self.network.uneven
        )

    @property
    def _need_not_stand(self) -> bool:
        """Nobody is before the next one, or none of them gets a place anyway."""
        return self._admission.draining or not self._admission.standing

    def _waiting_by_network(self) -> int:
        return sum(self.standing[transport].count for transport in BY_NETWORK)

    def _standing_by(self, caller: Caller) -> Line:
        return self.standing[caller.door.transport]

    def _stand(self, caller: Caller) -> None:
        caller.spoken = True
        self._standing_by(caller).add(caller)
        self._admission.stands(caller.door.transport)
        self._reckon()

    def _drop(self, caller: Caller) -> None:
        self._take_away(caller)
        COURIERS.close(caller.sock)

    def _take_away(self, caller: Caller) -> None:
        """Its socket is somebody else's matter from here on."""
        self._unwatch(caller)
        self.network.discard(caller)
        line = self._standing_by(caller)
        if caller in line:
            line.discard(caller)
            self._admission.stands_no_more(caller.door.transport)
        self._admission.no_caller(caller.holder)
        self._reckon()

    def _watch(self, caller: Caller, events: int) -> bool:
        try:
            self._epoll.register(caller.descriptor, events)
        except OSError as error:
            log.info("%s: it cannot be watched: %s", caller, error.strerror)
            return False
        self._watched[caller.descriptor] = caller
        return True

    def _unwatch(self, caller: Caller) -> None:
        if self._watched.pop(caller.descriptor, None) is not None:
            with contextlib.suppress(OSError):  # it was reset, and closed by whoever found that out
                self._epoll.unregister(caller.descriptor)

    @staticmethod
    def _has_spoken(caller: Caller) -> bool:
        try:
            return bool(caller.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False
