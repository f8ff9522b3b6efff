"""Sends calls when they are due: one epoll loop for a part of one target's connections.

Open model (the default): the calls' moments are laid down by the rate alone. When one has come, the
connection that has been free for longest makes the call; if none is free the call waits, and so do
those behind it. Latency runs from the moment on which the call was due and not from when it was
sent, so a server that stalls is charged with every call that it held up ("coordinated omission" is
to leave these out). Nothing is queued: the next moment that is due is remembered, and how to get to
the one after it. A call that could not be sent for as long as any wait may last is given up and
counted as `unsent`.

How late the tool itself was is kept beside it: from the later of "due" and "a connection was free"
until the call left.

Closed model: a connection makes its next call when it has the reply to the last one.

A connection that breaks costs the call that it carried, by the class of the error, and is opened
again after a pause that doubles. The loop does not end for errors.

With a new session per call the latency of the connect runs from when the call was due, and that of
the call from when it was sent.
"""

import select
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from struct import Struct
from time import perf_counter_ns
from typing import Final

from proxyd.wire.frame import HEADER_SIZE, LENGTH_SIZE
from proxyd.wire.programs import Remote
from proxyd.wire.xdr import MalformedFrame

from ..stages import steady
from .alarm import Alarm
from .crew import Crew
from .errors import TROUBLE, UNSENT, ErrorReply, kind_of
from .line import NEVER, SCRATCH, Line, checked
from .parcels import Done, Opened, Parcel, Tally, cpu_and_wait_ns
from .plan import Order
from .requests import Request, Requests, answers
from .streams import transfer

_TICK_NS: Final = 50_000_000  # between two looks after the connections, each with a parcel home
_PREPARING_TICK_NS: Final = 5_000_000
# For calls that were due at the very end: longer than the tool is ever late, and no more.
_GRACE_NS: Final = 100_000_000
_LENGTH: Final = Struct(">I")


class Engine:
    """The loop itself; lives in a process of its own."""

    def __init__(self, order: Order) -> None:
        self._load, self._part = order.load, order.part
        self._wait_ns = int(order.opening.wait_s * 1e9)
        self._epoll, self._alarm = select.epoll(), Alarm()
        self._epoll.register(self._alarm, select.EPOLLIN | select.EPOLLET)
        self._tally = Tally([array("q") for _ in order.load.mix.work])
        self._requests = Requests(order.load.mix, order.part.one_of(order.load.volumes))
        self._places = order.load.mix.endless(seed=order.part.place)
        self._free: deque[Line] = deque()
        self._crew = Crew(
            order, self._requests, self._tally, self._epoll, free=self._freed, lost=self._lost
        )
        self._under_way = 0
        self._moments: Iterator[int] = iter(())
        self._due = NEVER  # the moment of the next call
        self._left = NEVER  # what that was when the time was up
        self._origin = self._end = NEVER  # of the measured part
        self._interval = 0

    def prepare(self) -> Opened:
        """Opens the connections that the beginning needs, each of them tried once."""
        self._crew.wanted = max(1, self._wanted(0.0))
        while True:
            now = perf_counter_ns()
            self._crew.look_after(now)
            if self._crew.all_tried:
                return self._crew.opened()
            self._turn(now, now + _PREPARING_TICK_NS)

    def run(
        self,
        begins_ns: int,
        post: Callable[[Parcel], None],
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Done:
        """From this moment of perf_counter_ns on, and until the last reply.

        Once it is stopped nothing is waited for: of the calls under way then nothing is told.
        """
        self._lay_down(begins_ns)
        tick, used = begins_ns, (0, 0)
        measures = stopped = False
        while True:
            now = perf_counter_ns()
            if now >= tick:
                if measures:
                    post(self._tally.parcel(self._interval))
                    stopped = is_stopped()
                    if stopped:
                        break
                elif now >= self._origin:
                    # What the warm-up has left is not counted, and calls of it that are still
                    # under way will not be.
                    self._tally.clear()
                    measures, used = True, cpu_and_wait_ns()
                self._look_after(now)
                tick = self._next_tick(now)
            if self._due <= now:
                self._dispatch(now)
            if now >= self._end and self._is_over(now):
                break
            self._turn(now, tick)
        cpu, waited = cpu_and_wait_ns()
        intervals = self._interval + 1
        if not stopped:
            intervals, self._due = self._load.intervals, self._left
            self._give_up(until=NEVER)
        post(self._tally.parcel(self._interval))
        return Done(intervals, now - self._origin, cpu - used[0], waited - used[1])

    def close(self) -> None:
        """Without a goodbye: a server that has failed would be waited for by each connection."""
        self._crew.close()
        self._alarm.close()
        self._epoll.close()

    # The path of every call: _turn, _heard, _dispatch, _send.

    def _turn(self, now: int, until: int) -> None:
        """Waits until something comes, a call is due or the time is up, and takes what has come."""
        if self._free and self._due < until:
            self._alarm.ring(self._due)
        by_number = self._crew.by_number
        for number, _ in self._epoll.poll(max(0, until - now) / 1e9):
            line = by_number.get(number)
            if line is None:
                continue  # the alarm, or closed in this very turn
            if line.steps is not None:
                self._crew.go_on(line)
            else:
                try:
                    self._heard(line)
                except BlockingIOError:
                    continue  # a TLS record without data, or a part of a token
                except TROUBLE as error:
                    self._crew.broke(line, error)
            # Not when all have been heard: whoever is free now may have been waited for.
            if self._due <= now:
                self._dispatch(now)

    def _heard(self, line: Line) -> None:
        got = line.channel.recv_into(SCRATCH)
        now = perf_counter_ns()
        self._tally.bytes_down += got
        request = line.request
        if (
            request is None
            or SCRATCH[LENGTH_SIZE:HEADER_SIZE] != request.usual
            or _LENGTH.unpack_from(SCRATCH)[0] != got
            or line.frames.held
        ) and not self._is_whole(line, got):
            return
        assert request is not None
        if line.intended_ns >= self._origin:
            self._tally.calls[request.place].append(now - line.intended_ns)
        line.request = None
        line.since_ns = NEVER
        line.freed_ns = now
        self._under_way -= 1
        self._free.append(line)

    def _dispatch(self, now: int) -> None:
        """Every call that is due, as long as a connection is free."""
        free, clock, late = self._free, perf_counter_ns, self._tally.late
        while free and self._due <= now:
            sent = clock()
            if not self._load.closed:
                line = free.popleft()
                intended, self._due = self._due, next(self._moments, NEVER)
                late.append(sent - max(intended, line.freed_ns))
                self._send(line, intended, sent)
            elif sent >= self._end:
                self._due = NEVER
            elif (line := free.popleft()).place < self._crew.wanted:
                self._send(line, sent, sent)
            else:
                self._crew.retire(line)

    def _send(self, line: Line, intended: int, now: int) -> None:
        request = self._requests.all[next(self._places)]
        line.request, line.intended_ns, line.since_ns = request, intended, now
        self._under_way += 1
        if self._load.anew:
            self._crew.start(line, lambda connected: self._visit(line, request, connected))
        elif request.wire:
            try:
                line.channel.send(request.wire)
            except OSError as error:
                self._crew.broke(line, error)
                return
            self._tally.bytes_up += len(request.wire)
        else:
            line.steps = self._transferred(line, request)
            self._crew.go_on(line)

    # What is less frequent.

    def _is_whole(self, line: Line, got: int) -> bool:
        """Whether the call has its reply, with what has come now; an error reply is one."""
        line.take(got)
        frame = line.next_frame()
        if frame is None:
            return False
        if line.request is None:
            raise MalformedFrame("a reply without a call")
        answers(frame, line.request.serial)
        try:
            checked(frame)
        except ErrorReply as error:
            self._tally.errors[kind_of(error)] += 1
        return True

    def _transferred(self, line: Line, request: Request) -> Iterator[None]:
        """A transfer on an open connection."""
        yield from self._moved(line, request)
        self._record(request, line.intended_ns, line.intended_ns)

    def _visit(self, line: Line, request: Request, connected: bool) -> Iterator[None]:
        """A session with one call in it."""
        yield from line.opened(connected)
        began = perf_counter_ns()
        if line.intended_ns >= self._origin:
            self._tally.connects.append(began - line.intended_ns)
        if request.wire:
            try:
                yield from line.answered(request)
            except ErrorReply as error:
                self._tally.errors[kind_of(error)] += 1
        else:
            yield from self._moved(line, request)
        self._record(request, line.intended_ns, began)
        yield from line.called(Remote.CONNECT_CLOSE, b"")
        self._crew.leave(line)

    def _moved(self, line: Line, request: Request) -> Iterator[None]:
        up, down = yield from transfer(line, request)
        self._tally.bytes_up += up
        self._tally.bytes_down += down

    def _record(self, request: Request, intended: int, began: int) -> None:
        if intended >= self._origin:
            self._tally.calls[request.place].append(perf_counter_ns() - began)

    def _freed(self, line: Line) -> None:
        if line.request is not None:
            line.request = None
            self._under_way -= 1
        line.since_ns = NEVER
        line.freed_ns = perf_counter_ns()
        self._free.append(line)

    def _lost(self, line: Line) -> None:
        if line.request is None:
            with suppress(ValueError):  # it was being opened
                self._free.remove(line)
            return
        line.request = None
        self._under_way -= 1
        if self._load.anew and not self._load.closed:
            # No pause: the rate is the limit, and every refusal is to be counted.
            line.is_down = False
            self._freed(line)

    def _lay_down(self, begins_ns: int) -> None:
        load = self._load
        self._origin = begins_ns + int(load.warmup_s * 1e9)
        self._end = self._origin + int(load.course.length_s * 1e9)
        if load.closed:
            self._due = begins_ns  # from then on always: whoever is free makes a call
            return
        pieces = [(self._origin, load.course)]
        if load.warmup_s:
            pieces.insert(0, (begins_ns, steady(load.course.level(0.0), load.warmup_s)))
        self._moments = chain.from_iterable(
            (begins + int(at_s * 1e9) for at_s in course.moments(self._part.counts(load.poisson)))
            for begins, course in pieces
        )
        self._due = next(self._moments, NEVER)

    def _look_after(self, now: int) -> None:
        self._crew.wanted = self._wanted((now - self._origin) / 1e9)
        self._crew.look_after(now)
        self._give_up(until=now - self._wait_ns)

    def _wanted(self, at_s: float) -> int:
        if not self._load.closed:
            return len(self._crew.callers)
        return self._part.share(round(self._load.course.level(at_s)))

    def _give_up(self, until: int) -> None:
        """Calls that were due before, and have found no connection."""
        while not self._load.closed and self._due < until:
            self._tally.errors[UNSENT] += self._due >= self._origin
            self._due = next(self._moments, NEVER)

    def _next_tick(self, now: int) -> int:
        tick = now + _TICK_NS
        if now < self._origin:
            return min(tick, self._origin)
        length = int(self._load.interval_s * 1e9)
        last = self._load.intervals - 1
        self._interval = min((now - self._origin) // length, last)
        if self._interval < last:
            tick = min(tick, self._origin + (self._interval + 1) * length)
        return min(tick, self._end) if now < self._end else tick

    def _is_over(self, now: int) -> bool:
        """Whether nothing is under way and nothing will be sent any more."""
        if self._due != NEVER and not self._load.closed:
            if now < self._end + _GRACE_NS:
                return False
            self._left, self._due = self._due, NEVER
        return not self._under_way
