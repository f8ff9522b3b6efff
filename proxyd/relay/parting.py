"""Partings: connections of daemons whose clients are gone, on their way to an orderly end.

A session ends when its client does; what is left is the daemon's socket, what the client has sent
and the daemon has not taken, and where both directions stand. The relay loop goes on with them: it
reads and discards, fills up a stream packet that was cut off, and says what the farewell says
(farewell.py). What must stay true:

* The daemon sees whole frames only, in order, and no end before its last reply.
* Nothing that a daemon does holds a parting longer than `timeout_s`, or makes it hold memory. A
  ping is answered, since a daemon that hears nothing for half a minute hangs up.
* There are so many at a time, and so many at one daemon; beyond that the oldest is ended hard.

Used by one relay thread; others read `live`, by its length, and `of`.
"""

import logging
import select
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from proxyd.endpoint.contract import NOTHING, HungUp
from proxyd.endpoint.couriers import COURIERS
from proxyd.endpoint.errands import Errand
from proxyd.relay.farewell import Farewell, Step
from proxyd.relay.figures import DirectionFigures
from proxyd.relay.pair import RelayedPair
from proxyd.wire.programs import Keepalive, Remote
from proxyd.wire.remote import keepalive
from proxyd.wire.state import State
from proxyd.wire.xdr import MalformedFrame

_ZEROS: Final = memoryview(bytes(65536))
_PONG: Final = keepalive(Keepalive.PONG).pack()
_INPUT: Final = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_NS: Final = 1_000_000_000

# As many sessions as a host's tools have when they are all ended at once.
MOST: Final = 512

log = logging.getLogger("proxyd.relay")


class Outcome(Enum):
    """How a parting ended; the values are names in `proxyd status --json`."""

    ORDERLY = "orderly"
    DAEMON_GONE = "daemon_gone"  # the daemon ended the connection first
    OVERDUE = "overdue"  # it did not answer in time
    DISPLACED = "displaced"  # a newer one needed the place
    CUT_OFF = "cut_off"  # proxyd stopped, or one of both sides cannot be understood


@dataclass(slots=True)
class AtDaemon:
    """The partings at one daemon: how many there are, and how those that were ended."""

    now: int = 0
    ended: Counter[Outcome] = field(default_factory=Counter)


class Nowhere:
    """An end that takes everything and keeps nothing."""

    may_splice = False
    carries_descriptors = False
    moves = False
    pending = False
    reads_when_writable = False

    def fileno(self) -> int:
        return -1

    def read_into(self, _view: memoryview) -> int:
        return NOTHING

    def write(self, view: memoryview) -> int:
        return len(view)

    def take_descriptors(self) -> None:
        """None ever come."""

    def splice_to(self, _pipe: int, _count: int) -> int:
        raise NotImplementedError("nothing comes from there")

    def splice_from(self, _pipe: int, _count: int) -> int:
        raise NotImplementedError("it is not spliced to")

    def end_write(self) -> None:
        """Nobody is told."""

    def close(self) -> None:
        """Nothing is open."""

    def state(self) -> State:
        raise NotImplementedError("it is nobody's other end")

    def go_on(self) -> None:
        raise NotImplementedError("it is nobody's other end")

    def let_go(self) -> None:
        raise NotImplementedError("it is nobody's other end")


NOWHERE: Final = Nowhere()


class Parting:
    """One of them. Owns the daemon's endpoint of the pair, and its flow up."""

    __slots__ = (
        "_farewell",
        "_pongs",
        "began_ns",
        "daemon",
        "down",
        "endpoint",
        "errand",
        "mask",
        "number",
        "owner",
        "trail",
        "up",
    )

    def __init__(self, pair: RelayedPair, figures: DirectionFigures, now_ns: int) -> None:
        self.number = pair.number
        self.owner = pair.owner
        self.daemon = pair.daemon
        self.endpoint = pair.backend.endpoint
        self.up = pair.up
        self.down = pair.down.discarding(NOWHERE, figures)
        self.began_ns = now_ns
        self.trail = pair.trail
        self.mask = 0
        self.errand: Errand | None = None
        self._pongs = self.down.keepalives
        closed = pair.up.last == Remote.CONNECT_CLOSE
        self._farewell = Farewell(pair.ledger, pair.up.calls, closed=closed)

    def begin(self) -> None:
        """Drops what the client has not sent whole, and says what can be said. Raises HungUp."""
        self.up.end()
        self._go_on()

    def serve(self, events: int, scratch: memoryview) -> None:
        """Reads once, writes what goes. Raises HungUp and MalformedFrame."""
        if events & select.EPOLLOUT and self.up.stalled:
            self.up.flush()
        if events & _INPUT and self.errand is None:
            self.down.pump(scratch)
            if self.down.stalled:  # a descriptor, for which there is room
                self.down.flush()
        self._go_on()

    def descriptor_taken(self) -> None:
        """The errand is done."""
        self.errand = None
        self.down.carried()
        self._go_on()

    def _go_on(self) -> None:
        up, down, farewell = self.up, self.down, self._farewell
        while up.missing and not up.stalled:
            up.fill_up(_ZEROS)
        if up.stalled:
            return
        if self._pongs != down.keepalives and farewell.step is not Step.CLOSE:
            self._pongs = down.keepalives
            up.give(_PONG)
        if down.in_frame:
            return  # the last reply has begun, and its daemon is still at it
        step = None
        while farewell.step is not step and not up.stalled:
            step = farewell.step
            wire = farewell.goes_on(down.calls)
            if wire:
                up.give(wire)

    @property
    def over(self) -> bool:
        return self._farewell.step is Step.OVER

    @property
    def outcome(self) -> Outcome | None:
        """How it has ended, or None."""
        if self.over:
            return Outcome.ORDERLY
        return Outcome.DAEMON_GONE if self.down.exhausted else None

    @property
    def wanted(self) -> int:
        """What epoll should watch for."""
        mask = select.EPOLLIN if self.errand is None else 0
        return mask | (select.EPOLLOUT if self.up.stalled else 0)

    def close(self) -> None:
        if self.trail is not None:
            self.trail.end()
        if self.errand is not None:
            self.errand.cancel()
        self.up.give_up()
        self.endpoint.close()


class Partings:
    """All of one relay thread's, by the numbers of their descriptors, the oldest first.

    `order` has something called in the relay thread. `timeout_s` gives what is in force now; 0
    means that there are none. `beside` lists those of several threads, itself among them, that have
    `most` together; each makes room among its own, so that there may be one more of each thread.
    """

    def __init__(
        self,
        epoll: select.epoll,
        order: Callable[[Callable[[], None]], object],
        *,
        timeout_s: Callable[[], int],
        most: int = MOST,
        beside: "list[Partings] | None" = None,
    ) -> None:
        self._beside = [] if beside is None else beside
        self._beside.append(self)
        self.timeout_s = timeout_s
        self.most = most
        self.live: dict[int, Parting] = {}
        self.of: dict[str, AtDaemon] = {}
        self.bugs = 0
        self._epoll = epoll
        self._order = order
        self._figures = DirectionFigures()

    def begin(self, pair: RelayedPair, now_ns: int) -> None:
        """Goes on with the daemon's end of a pair, which epoll does not know any more."""
        parting = Parting(pair, self._figures, now_ns)
        there = self.of.setdefault(parting.daemon, AtDaemon())
        self._make_room(parting.daemon, there)
        fd = parting.endpoint.fileno()
        self.live[fd] = parting
        there.now += 1
        self._within_net(parting, parting.begin)

    def serve(self, fd: int, events: int, scratch: memoryview) -> None:
        """An event of a descriptor, which may be of none of them."""
        parting = self.live.get(fd)
        if parting is not None:
            self._within_net(parting, lambda: parting.serve(events, scratch))

    def next_end_ns(self) -> int | None:
        """When the first of them is overdue, by CLOCK_MONOTONIC."""
        for parting in self.live.values():
            return parting.began_ns + self.timeout_s() * _NS
        return None

    def expire(self, now_ns: int) -> None:
        while (end_ns := self.next_end_ns()) is not None and end_ns <= now_ns:
            parting = next(iter(self.live.values()))
            log.warning(
                "session %d: %s has not let its connection end in %d s (proxyd_parting_timeout)",
                parting.number,
                parting.daemon,
                self.timeout_s(),
            )
            self._end(parting, Outcome.OVERDUE)

    def end_all(self) -> None:
        """Hard."""
        for parting in list(self.live.values()):
            self._end(parting, Outcome.CUT_OFF)

    def _make_room(self, daemon: str, there: AtDaemon) -> None:
        """Half of the places at most are one daemon's: one that hangs costs the others nothing."""
        while there.now and self._now_at(daemon) >= max(1, self.most // 2):
            oldest = next(each for each in self.live.values() if each.daemon == daemon)
            self._end(oldest, Outcome.DISPLACED)
        while self.live and sum(len(each.live) for each in self._beside) >= self.most:
            self._end(next(iter(self.live.values())), Outcome.DISPLACED)

    def _now_at(self, daemon: str) -> int:
        found = [each.of.get(daemon) for each in self._beside]
        return sum(each.now for each in found if each is not None)

    def _within_net(self, parting: Parting, step: Callable[[], None]) -> None:
        """Whatever one of them meets ends it alone."""
        try:
            step()
            self._watch(parting)
        except HungUp:
            # Its last reply may have been the one that was waited for.
            self._end(parting, parting.outcome or Outcome.DAEMON_GONE)
        except (MalformedFrame, OSError) as error:
            log.info("session %d: parting from %s: %s", parting.number, parting.daemon, error)
            self._end(parting, Outcome.CUT_OFF)
        except Exception:
            self.bugs += 1
            log.exception("session %d: an error of the relay's own in its parting", parting.number)
            self._end(parting, Outcome.CUT_OFF)

    def _watch(self, parting: Parting) -> None:
        outcome = parting.outcome
        if outcome is not None:
            self._end(parting, outcome)
            return
        if parting.down.wants_courier:
            self._have_taken(parting)
        wanted = parting.wanted
        if wanted != parting.mask:
            fd = parting.endpoint.fileno()
            if not parting.mask:
                self._epoll.register(fd, wanted)
            elif not wanted:
                self._epoll.unregister(fd)
            else:
                self._epoll.modify(fd, wanted)
            parting.mask = wanted

    def _have_taken(self, parting: Parting) -> None:
        """A descriptor that the daemon has sent is for nobody now."""
        parting.down.wants_courier = False

        def done(reason: str) -> None:
            self._order(lambda: self._within_net(parting, lambda: taken(reason)))

        def taken(reason: str) -> None:
            if parting.errand is not errand:
                return
            if reason:
                raise MalformedFrame(f"its descriptor was not taken: {reason}")
            parting.descriptor_taken()

        errand = parting.errand = Errand(parting.endpoint.fileno(), None, done)
        COURIERS.carry(parting.owner, errand)

    def _end(self, parting: Parting, outcome: Outcome) -> None:
        fd = parting.endpoint.fileno()
        if self.live.get(fd) is not parting:
            return
        del self.live[fd]
        there = self.of[parting.daemon]
        there.now -= 1
        there.ended[outcome] += 1
        if parting.mask:
            try:
                self._epoll.unregister(fd)
            except OSError as error:
                log.debug("session %d: %s", parting.number, error)
            parting.mask = 0
        try:
            parting.close()
        except Exception:
            self.bugs += 1
            log.exception("session %d: an error of the relay's own at its end", parting.number)
