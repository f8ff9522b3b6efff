"""The epoll turn: adopts pairs, pumps what is readable, flushes what is writable, drops pairs.

One thread runs `run`. The control plane talks to it through the methods that any thread may call
(`adopt`, `drop`, `freeze`, `ask`, `stop` and others): they put something on a deque and wake
the loop by an eventfd.
The loop talks back through `report`, called in the relay thread, once for every pair that was
adopted, when its sockets are closed. No lock is on the path of a byte: figures have one writer.

Watching. Level-triggered epoll; a turn takes at most one receive from each readable endpoint,
so a fast stream cannot hold up a slow call. An endpoint is watched for input while the flow that
reads it may move (not stalled, paused or ended), for output while the flow that writes it
stalls. Some corners make this less simple than it sounds:

* epoll always reports a hang-up, asked or not. An endpoint that hung up while its flow is stalled
  still holds bytes that must be delivered, so it cannot be pumped and would be reported at once
  again: such an endpoint is taken out of epoll until its flow moves.
* An endpoint whose input has ended stays registered, watched for nothing: a hang-up then means
  that the other side has closed fully, not just its sending half. Whatever would be written to
  it could never arrive, so that flow is given up, and a client that was killed in front of a
  daemon that sleeps does not hold its session forever.
* An endpoint that decrypts may hold bytes that epoll knows nothing of (`pending`). Its flow is
  pumped once more in each turn, as if the socket were readable, for as long as that lasts.
* A flow whose descriptor is carried by another process is neither read nor written until an order
  says how that went.
* A client whose calls are counted by time (pace.py) is charged when it was read, and not read again
  before it has paid. It is written to meanwhile; its end is seen afterwards, behind what it sent.
* An endpoint whose read waits for room to write (`reads_when_writable`) is watched for output
  instead of input, and read when that comes.

Ends. A flow that met its end gives on what it holds, says so to its destination, and is done; a
destination that takes nothing more ends only the flow that writes to it, since what it sent
before may still be read; a reset ends both. When both flows are done, the pair is closed.

Moves. Between two events a pair may be frozen: neither loop nor epoll know its sockets any more,
and nothing is closed. It thaws and goes on as if nothing had been, or another loop, of another
process even, resumes what it was (moving.py) and this one lets it go. What would end it meanwhile
ends it when it thaws. What is frozen when the loop stops is ended and reported like the rest:
whoever has given it to somebody else lets it go before.

Where there are partings, a daemon is not told that its client has ended. A client that has ended
its half still gets the replies to its calls. Then, or at once if it reads no more or was thrown
out, its session is over and reported, and the daemon's connection goes into a parting (parting.py),
which has the same epoll and is served behind the sessions.
"""

import contextlib
import heapq
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from proxyd.endpoint.contract import HungUp
from proxyd.endpoint.couriers import COURIERS
from proxyd.endpoint.errands import Errand
from proxyd.relay.figures import Clock, Figures
from proxyd.relay.flow import Flow
from proxyd.relay.guards import Guards
from proxyd.relay.histogram import TURN_NS, Histogram
from proxyd.relay.moving import Frozen, arrived, go_on
from proxyd.relay.pace import Pace
from proxyd.relay.pair import CLIENT_CLOSED, DAEMON_CLOSED, UNWATCHED, End, RelayedPair
from proxyd.relay.parting import MOST, Partings
from proxyd.relay.pipes import PipePool
from proxyd.relay.trail import Trail
from proxyd.wire.programs import Remote
from proxyd.wire.xdr import MalformedFrame

SCRATCH_SIZE: Final = 65536
STOPPED: Final = "proxyd stopped"
_LATE_S: Final = 0.002  # what is due is looked for then, and not a moment too early
_TIMED_TURN: Final = 16  # each so-manieth is timed
_MOST_DAEMONS: Final = 64  # libvirt has a dozen; routes may name more
OTHERS: Final = "other"
EVENTS_A_TURN: Final = 64  # also what poll() allocates for; more ready ones come next turn
_READABLE: Final = select.EPOLLIN
_GONE: Final = select.EPOLLHUP | select.EPOLLERR
_INPUT: Final = select.EPOLLIN | _GONE

log = logging.getLogger("proxyd.relay")


class RelayLoop:
    """One relay thread's loop. `report` is called in that thread for each pair that has ended."""

    def __init__(
        self,
        report: Callable[[RelayedPair], None],
        *,
        pipes: PipePool | None = None,
        parting_timeout_s: Callable[[], int] = lambda: 0,
        partings: int = MOST,
        beside: list[Partings] | None = None,
        name: str = "relay",
    ) -> None:
        self._report = report
        self.pipes = pipes or PipePool()
        self.name = name
        self.clock = Clock()
        self.turn_time = Histogram(TURN_NS)
        self.figures = Figures()  # of daemons beyond the number that is told apart
        self.by_daemon = {OTHERS: self.figures}
        self._turns = 0
        self.bugs = 0  # sessions ended by an error of ours
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._orders: deque[Callable[[], None]] = deque()
        self._ends: dict[int, End] = {}
        self._pairs: dict[int, RelayedPair] = {}
        self._frozen: dict[int, Frozen] = {}
        self.partings = Partings(
            self._epoll, self._order, timeout_s=parting_timeout_s, most=partings, beside=beside
        )
        self._parting = self.partings.live
        self._unpaid: list[tuple[int, int]] = []  # a heap: when who is read again
        self._pending: set[End] = set()  # may be read, and epoll does not say so
        self._scratch = memoryview(bytearray(SCRATCH_SIZE))
        self._stopping = False
        self._closed = False
        self._lock = threading.Lock()  # between an order and the end of the loop, nothing else

    @property
    def sessions(self) -> int:
        """How many there are. Any thread."""
        return len(self._pairs) + len(self._frozen)

    def figures_of(self, daemon: str) -> Figures:
        """Where the sessions of a daemon are counted. The thread of the control plane alone."""
        if daemon not in self.by_daemon:
            if len(self.by_daemon) > _MOST_DAEMONS:
                return self.figures
            self.by_daemon[daemon] = Figures()
        return self.by_daemon[daemon]

    def adopt(self, pair: RelayedPair) -> None:
        """Takes a pair over; its sockets belong to the loop from here on. Any thread."""
        if not self._order(lambda: self._adopt(pair)):
            pair.because(STOPPED)
            self._end(pair)

    def resume(self, pair: RelayedPair) -> None:
        """Likewise, of one that was made from the state of another. Any thread."""
        if not self._order(lambda: self._resume(pair)):
            pair.because(STOPPED)
            self._end(pair)

    def freeze(self, number: int, done: Callable[[Frozen | None], None]) -> None:
        """Takes a pair out as it is. Any thread.

        `done` gets it in the relay thread, between two events; None where there is no such pair, or
        it cannot move, or not now: a descriptor of its is being carried. Where the loop has stopped
        `done` is called at once.
        """
        if not self._order(lambda: done(self._freeze(number))):
            done(None)

    def thaw(self, frozen: Frozen) -> None:
        """Goes on with it as if nothing had been. Any thread."""
        self._order(lambda: self._thaw(frozen))

    def let_go(self, frozen: Frozen) -> None:
        """It goes on elsewhere: closes our copies of its sockets, reports nothing. Any thread."""
        self._order(lambda: self._let_go(frozen))

    def drop(self, number: int, reason: str) -> None:
        """Ends a pair at once, on both sides; one that has ended already is fine. Any thread."""
        self._order(lambda: self._drop(number, reason))

    def drop_all_of(self, owner: str, reason: str) -> None:
        """Ends every pair of one owner's. Any thread."""
        self._order(lambda: self._drop_all_of(owner, reason))

    def end_quiet(self, reason: str, *, all_of_them: bool = True) -> None:
        """Ends every pair that has nothing under way; or only those that cannot move. Any thread.

        What a client has sent, and nobody has read, was not begun: it can be tried again.
        """
        self._order(lambda: self._end_quiet(reason, all_of_them=all_of_them))

    def ask(self, answer: Callable[[], None]) -> None:
        """Calls it in the relay thread when orders are taken next, if ever. Any thread."""
        self._order(answer)

    def record(self, pair: RelayedPair, trail: Trail | None) -> None:
        """How the calls of a session that is open are recorded from now on. Any thread."""
        self._order(lambda: pair.record(trail))

    def restrict(self, pair: RelayedPair, guards: Guards, pace: Pace | None = None) -> None:
        """What the client of a session that is open may do from now on. Any thread."""
        self._order(lambda: self._restrict(pair, guards, pace))

    def part_all(self, reason: str) -> None:
        """Ends every pair, and lets each daemon know in order. Any thread."""
        self._order(lambda: self._part_all(reason))

    def stop(self, reason: str) -> None:
        """Ends every pair, every parting and then the loop, at once. Any thread."""
        self._order(lambda: self._stop(reason))

    def run(self) -> None:
        """The relay thread's life."""
        while not self._stopping:
            self.turn(None)
        self._close()

    def turn(self, timeout_s: float | None) -> None:
        """Waits for events and serves each once."""
        ends = self._ends
        woken = False
        again = self._pending
        if again:
            self._pending = set()
            timeout_s = 0
        if self._parting or self._unpaid:
            timeout_s = self._until_one_is_due(timeout_s)
        ready = self._epoll.poll(timeout_s, EVENTS_A_TURN)
        self.clock.now_ns = now_ns = time.monotonic_ns()
        for fd, events in ready:
            end = ends.get(fd)
            if end is not None:
                end.pair.active_ns = now_ns
                self._serve(end, events)
            elif fd == self._wake:
                # Orders come after the other events: a pair that is adopted may own a number
                # that an event of this very turn was meant for.
                woken = True
            else:
                self.partings.serve(fd, events, self._scratch)
        for end in again:
            # Events come first: one of them may have ended this very pair.
            if end.mask & _READABLE and end not in self._pending:
                self._serve(end, _READABLE)
        if self._parting or self._unpaid:
            self._serve_what_is_due(now_ns)
        if woken:
            self._take_orders()
        self._count_turn()

    def _count_turn(self) -> None:
        self._turns += 1
        if not self._turns % _TIMED_TURN:
            self.turn_time.observe(time.monotonic_ns() - self.clock.now_ns)

    def _until_one_is_due(self, timeout_s: float | None) -> float | None:
        """How long to wait for events, so that neither a parting is late, nor who has paid."""
        dues_ns = [due_ns for due_ns, _ in self._unpaid[:1]]
        first_ns = self.partings.next_end_ns()
        if first_ns is not None:
            dues_ns.append(first_ns)
        if not dues_ns:
            return timeout_s
        first_ns = min(dues_ns)
        left_s = max(0, first_ns - time.monotonic_ns()) / 1e9 + _LATE_S
        return left_s if timeout_s is None else min(left_s, timeout_s)

    def _order(self, order: Callable[[], None]) -> bool:
        """False when the loop has stopped: its descriptors' numbers may be somebody else's."""
        with self._lock:
            if self._closed:
                return False
            self._orders.append(order)
            os.eventfd_write(self._wake, 1)
            return True

    def _take_orders(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._orders:
            self._orders.popleft()()

    def _serve(self, end: End, events: int) -> None:
        reads = end.reads
        try:
            if events == _READABLE and end.mask & _READABLE:
                reads.pump(self._scratch)  # nearly every event
            elif not self._serve_rarer(end, events):
                return
        except Exception as error:  # noqa: BLE001 (the one net of this plane)
            if not self._survives(end.pair, reads, error):
                return
        if reads.changed or end.writes.changed:
            self._settle(end.pair)
        elif end.endpoint.pending:
            self._pending.add(end)

    def _serve_rarer(self, end: End, events: int) -> bool:
        """An endpoint that can be written again, that hung up, or that is not to be read now.

        False when the pair has ended over it.
        """
        reads, writes = end.reads, end.writes
        if writes.stalled and events & (select.EPOLLOUT | _GONE):
            writes.changed = True
            try:
                writes.flush()
            except HungUp as hung_up:
                self._hung_up(end.pair, writes, hung_up)
            except MalformedFrame as error:  # in what was held back
                return self._survives(end.pair, writes, error)
        if end.endpoint.reads_when_writable:
            reads.changed = True  # afterwards it waits for input again, or goes on waiting for room
            events |= _READABLE
        if not events & _INPUT:
            return True
        if not (reads.ended or reads.stalled or reads.paused):
            reads.pump(self._scratch)
        elif events & _GONE and reads.ended and not writes.done:
            writes.give_up()
        return True

    def _survives(self, pair: RelayedPair, flow: Flow, error: Exception) -> bool:
        """Whether a pair goes on after what one of its flows has met; no other pair notices."""
        if isinstance(error, HungUp):
            self._hung_up(pair, flow, error)
            return True
        if isinstance(error, MalformedFrame):
            pair.offended = flow is pair.up
            side = "client" if pair.offended else "daemon"
            pair.parts = pair.parts and pair.offended  # who cannot be understood is told nothing
            self._finish(pair, f"protocol error from the {side}: {error}")
        else:
            self.bugs += 1
            log.error(
                "session %d ended by an error of the relay's own", pair.number, exc_info=error
            )
            pair.parts = False  # nobody knows where it stands
            self._finish(pair, "an error of the relay's own")
        return False

    def _hung_up(self, pair: RelayedPair, flow: Flow, hung_up: HungUp) -> None:
        side = "client" if (flow is pair.up) != hung_up.while_writing else "daemon"
        pair.because(f"the {side} is gone: {hung_up.reason}")
        if hung_up.while_writing:
            flow.break_off()
            return
        if flow.partner is not None:
            flow.partner.give_up()
        try:
            flow.end()
        except HungUp:
            flow.break_off()

    def _settle(self, pair: RelayedPair) -> None:
        """Something out of the ordinary happened: closes what is done, watches for what is next."""
        try:
            self._settle_or_fail(pair)
        except OSError as error:  # ENOMEM, ENOSPC: the kernel watches no more descriptors
            self._finish(pair, f"the relay cannot watch it: {os.strerror(error.errno or 0)}")

    def _settle_or_fail(self, pair: RelayedPair) -> None:
        pair.up.changed = pair.down.changed = False
        if pair.down.lost:
            pair.because(f"the client is gone: {pair.down.lost}")
        elif pair.up.ended or (pair.down.ended and pair.up.last == Remote.CONNECT_CLOSE):
            pair.because(CLIENT_CLOSED)  # or asked the daemon to, which was then quicker
        elif pair.down.ended:
            pair.because(DAEMON_CLOSED)
        if pair.done or pair.stuck or (pair.leaving and pair.answered):
            self._finish(pair, "")
            return
        if pair.pace is not None:
            self._charge(pair, pair.pace)
        if pair.leaving:
            pair.down.changed = True  # each event is looked at for whether that was the last reply
        for flow in (pair.up, pair.down):
            if flow.wants_courier:
                self._have_carried(pair, flow)
        self._watch(pair.client)
        self._watch(pair.backend)

    def _charge(self, pair: RelayedPair, pace: Pace) -> None:
        """For the calls that have come since, whoever answers them."""
        calls = pair.up.calls + pair.up.forbidden
        if calls == pair.charged:
            return
        taken, pair.charged = calls - pair.charged, calls
        self._await_turn(pair, pace, taken)

    def _await_turn(self, pair: RelayedPair, pace: Pace, calls: int = 0) -> None:
        """It is not read before these are paid for, and what its identity owes already."""
        now_ns = time.monotonic_ns()
        pair.paid_ns = pace.charge(calls, now_ns)
        if pair.paid_ns > now_ns and not pair.up.unpaid:
            pair.up.unpaid = True
            heapq.heappush(self._unpaid, (pair.paid_ns, pair.number))

    def _serve_what_is_due(self, now_ns: int) -> None:
        if self._parting:
            self.partings.expire(time.monotonic_ns())
        if self._unpaid:
            self._read_again(now_ns)

    def _read_again(self, now_ns: int) -> None:
        """Those that have paid."""
        while self._unpaid and self._unpaid[0][0] <= now_ns:
            _, number = heapq.heappop(self._unpaid)
            pair = self._pairs.get(number)
            if pair is None or not pair.up.unpaid:
                continue  # it has ended, is frozen, or its pace is another one
            if pair.paid_ns > now_ns:
                heapq.heappush(self._unpaid, (pair.paid_ns, number))
                continue
            pair.up.unpaid = False
            self._settle(pair)

    def _restrict(self, pair: RelayedPair, guards: Guards, pace: Pace | None) -> None:
        pair.restrict(guards, pace)
        if self._pairs.get(pair.number) is pair:
            self._settle(pair)

    def _have_carried(self, pair: RelayedPair, flow: Flow) -> None:
        """Another process takes the descriptor off src, and puts it on dst if it belongs there."""
        flow.wants_courier = False
        destination = None if flow.refusing else flow.dst.fileno()

        def done(reason: str) -> None:
            self._order(lambda: self._carried(pair, flow, errand, reason))

        errand = flow.errand = Errand(flow.src.fileno(), destination, done)
        COURIERS.carry(pair.owner, errand)

    def _carried(self, pair: RelayedPair, flow: Flow, errand: Errand, reason: str) -> None:
        if flow.errand is not errand:
            return  # the session has ended meanwhile
        if reason:
            pair.offended = flow is pair.up  # which costs somebody innocent a moment, once
            self._finish(pair, f"its descriptor was not passed on: {reason}")
            return
        try:
            flow.carried()
        except Exception as error:  # noqa: BLE001 (as for what an event brings)
            if not self._survives(pair, flow, error):
                return
        pair.active_ns = time.monotonic_ns()
        self._settle(pair)

    def _watch(self, end: End) -> None:
        reads, mask = end.reads, 0
        if not (reads.ended or reads.stalled or reads.paused):
            mask |= select.EPOLLOUT if end.endpoint.reads_when_writable else select.EPOLLIN
            if end.endpoint.pending:
                self._pending.add(end)
        if end.writes.stalled:
            mask |= select.EPOLLOUT
        if mask == 0 and (end.writes.done or not reads.ended):
            mask = UNWATCHED  # out of epoll: a hang-up tells nothing new, or must wait for its flow
        if mask == end.mask:
            return
        fd = end.endpoint.fileno()
        if mask == UNWATCHED:
            self._epoll.unregister(fd)
        elif end.mask == UNWATCHED:
            self._epoll.register(fd, mask)
        else:
            self._epoll.modify(fd, mask)
        end.mask = mask

    def _adopt(self, pair: RelayedPair) -> None:
        self._pairs[pair.number] = pair
        for end in (pair.client, pair.backend):
            self._ends[end.endpoint.fileno()] = end
        if pair.up.unpaid:
            heapq.heappush(self._unpaid, (pair.paid_ns, pair.number))
        elif pair.pace is not None:
            self._await_turn(pair, pair.pace)
        self._settle(pair)

    def _resume(self, pair: RelayedPair) -> None:
        arrived(pair)
        self._adopt(pair)

    def _freeze(self, number: int) -> Frozen | None:
        pair = self._pairs.get(number)
        if pair is None or not pair.moves or pair.up.errand or pair.down.errand:
            return None
        self._take_out(pair)
        try:
            frozen = self._frozen[number] = Frozen(pair)
        except ValueError as error:
            log.warning("session %d cannot be moved: %s", number, error)
        except Exception:
            self.bugs += 1
            log.exception("session %d: an error of the relay's own when it was to move", number)
        else:
            return frozen
        self._go_on(pair)
        return None

    def _thaw(self, frozen: Frozen) -> None:
        if self._is_back(frozen):
            self._go_on(frozen.pair, frozen.dropped)

    def _go_on(self, pair: RelayedPair, dropped: str = "") -> None:
        try:
            go_on(pair)
        except ValueError as error:
            pair.because(f"it cannot go on: {error}")
            self._end(pair)
            return
        self._adopt(pair)
        if dropped:
            self._finish(pair, dropped)

    def _let_go(self, frozen: Frozen) -> None:
        if not self._is_back(frozen):
            return
        try:
            frozen.let_go()
        except Exception:
            self.bugs += 1
            log.exception(
                "session %d: an error of the relay's own when it had moved", frozen.pair.number
            )

    def _is_back(self, frozen: Frozen) -> bool:
        """False where the loop has ended it."""
        number = frozen.pair.number
        if self._frozen.get(number) is not frozen:
            return False
        del self._frozen[number]
        return True

    def _drop(self, number: int, reason: str) -> None:
        if number in self._pairs:
            self._finish(self._pairs[number], reason)
        elif number in self._frozen:
            self._frozen[number].drop(reason)

    def _drop_all_of(self, owner: str, reason: str) -> None:
        self._drop_where(lambda pair: pair.owner == owner, reason)

    def _end_quiet(self, reason: str, *, all_of_them: bool) -> None:
        now_ns = time.monotonic_ns()
        self._drop_where(
            lambda pair: (all_of_them or not pair.moves) and pair.is_quiet(now_ns), reason
        )

    def _part_all(self, reason: str) -> None:
        self._drop_where(lambda _pair: True, reason)

    def _drop_where(self, condition: Callable[[RelayedPair], bool], reason: str) -> None:
        for pair in list(self._pairs.values()):
            if condition(pair):
                self._finish(pair, reason)
        for frozen in self._frozen.values():
            if condition(frozen.pair):
                frozen.drop(reason)

    def _finish(self, pair: RelayedPair, reason: str) -> None:
        """The end of a pair. Nothing that goes wrong here may keep other pairs from moving."""
        if pair.number not in self._pairs:
            return
        pair.because(reason)
        self._take_out(pair)
        self._end(pair)

    def _take_out(self, pair: RelayedPair) -> None:
        """Neither epoll nor this loop knows it any more."""
        del self._pairs[pair.number]
        for end in (pair.client, pair.backend):
            fd = end.endpoint.fileno()
            del self._ends[fd]
            self._pending.discard(end)
            if end.mask != UNWATCHED:
                # Its close does that as well, unless a process that is being started has a copy.
                with contextlib.suppress(OSError):
                    self._epoll.unregister(fd)
                end.mask = UNWATCHED

    def _end(self, pair: RelayedPair) -> None:
        for last_step in (self._close_sides, self._report):
            try:
                last_step(pair)
            except Exception:
                self.bugs += 1
                log.exception("session %d: an error of the relay's own at its end", pair.number)

    def _close_sides(self, pair: RelayedPair) -> None:
        if not pair.may_part or not self.partings.timeout_s() or self._stopping:
            if pair.trail is not None:
                pair.trail.end()
            pair.close()
            return
        try:
            self.partings.begin(pair, time.monotonic_ns())
        finally:
            pair.close_client()

    def _stop(self, reason: str) -> None:
        self._stopping = True
        self._part_all(reason)
        while self._frozen:
            pair = self._frozen.popitem()[1].pair
            pair.because(reason)
            self._end(pair)
        self.partings.end_all()

    def _close(self) -> None:
        with self._lock:
            self._closed = True
        # A pair that was handed over while the loop stopped is adopted and ended like the rest.
        self._take_orders()
        self._stop(STOPPED)
        self.pipes.close()
        self._epoll.close()
        os.close(self._wake)
