"""The connections of a worker: opened, kept open, watched by epoll, opened again."""

import select
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Final

from ..mix import Hold, Large
from .errors import TROUBLE, kind_of, words_of
from .line import NEVER, ConnectFailed, Line, Places
from .parcels import Opened, Tally
from .plan import Order
from .requests import EVENTS_ARGUMENTS, Requests

_MOST_OPENING: Final = 64  # at a time: below any server's queue of new connections


class Crew:
    """`free` is told of every line that can make a call, `lost` of one that broke.

    With `anew` the callers are places only, which visits fill; one more connection then holds, for
    libvirt's test driver builds its world with the first connection and takes it down with the
    last.
    """

    def __init__(
        self,
        order: Order,
        requests: Requests,
        tally: Tally,
        epoll: select.epoll,
        *,
        free: Callable[[Line], None],
        lost: Callable[[Line], None],
    ) -> None:
        self._target, self._wait_s = order.target, order.opening.wait_s
        self._wait_ns = int(order.opening.wait_s * 1e9)
        self._anew, self._closed = order.load.anew, order.load.closed
        self._requests, self._tally, self._epoll = requests, tally, epoll
        self._free, self._lost = free, lost
        mix, share = order.load.mix, order.part.share
        places = Places(order.target)

        def lines(number: int) -> list[Line]:
            return [
                Line(order.target, order.opening, places, place, tally) for place in range(number)
            ]

        self.callers = lines(share(order.load.connections))
        self._holders = {Hold.EVENTS: lines(share(mix.events)), Hold.IDLE: lines(share(mix.idle))}
        if self._anew:
            self._holders[Hold.IDLE] += lines(1)
        # Most of a line's time nobody but `by_number` has it, so this has them all.
        self._all = self.callers + [line for each in self._holders.values() for line in each]
        self.by_number: dict[int, Line] = {}
        self.wanted = len(self.callers)  # of the callers, from the first one on
        self._reason: str | None = None
        self._cipher: str | None = None

    def opened(self) -> Opened:
        """What has come about so far."""
        up = sum(line.settled or self._is_open(line) for line in self.by_number.values())
        return Opened(up, self._cipher, self._reason)

    @property
    def all_tried(self) -> bool:
        """Whether every connection has come about or failed once."""
        wanted = [line for lines in self._holders.values() for line in lines]
        if not self._anew:
            wanted += self.callers[: self.wanted]
        return all(line.retry_ns or line.settled or self._is_open(line) for line in wanted)

    def look_after(self, now: int) -> None:
        """Ends waits that have lasted too long, and opens what is to be open."""
        opening = 0
        for line in self._all:
            if now - line.since_ns > self._wait_ns:
                late = TimeoutError(f"nothing happened for {self._wait_s:g} s")
                (self._not_there if line.connecting else self.broke)(line, late)
            elif line.steps is not None and not line.settled:
                opening += 1
        for hold, lines in self._holders.items():
            for line in lines:
                opening += self._open_if_due(line, now, opening, hold)
        for line in self.callers[: self.wanted]:
            opening += self._open_if_due(line, now, opening, None)

    def start(self, line: Line, life: Callable[[bool], Iterator[None]]) -> None:
        """Connects, and lives that life, which is told whether the connection was there at once."""
        line.life = life
        try:
            connected = line.begin()
        except ConnectFailed as error:
            self._not_there(line, error)
            return
        except OSError as error:
            self.broke(line, error)
            return
        assert line.sock is not None
        self.by_number[line.sock.fileno()] = line
        line.is_down, line.settled = False, False
        # Over loopback TCP connects at once, too; elsewhere that is announced as EPOLLOUT.
        line.wants_room = not connected
        self._epoll.register(line.sock, select.EPOLLIN if connected else select.EPOLLOUT)
        line.steps, line.since_ns = life(connected), perf_counter_ns()
        if connected:
            self.go_on(line)

    def go_on(self, line: Line) -> None:
        """Takes what is under way on it as far as it gets."""
        assert line.steps is not None
        assert line.sock is not None
        try:
            line.sock.flush()
            next(line.steps)
        except StopIteration:
            line.steps = None
            self._free(line)
            return
        except ConnectFailed as error:
            self._not_there(line, error)
            return
        except TROUBLE as error:
            self.broke(line, error)
            return
        line.since_ns = NEVER if line.settled else perf_counter_ns()
        if line.wants_room != bool(line.sock.unsent):
            line.wants_room = not line.wants_room
            room = select.EPOLLOUT if line.wants_room else 0
            self._epoll.modify(line.sock, select.EPOLLIN | room)

    def _not_there(self, line: Line, error: OSError) -> None:
        """Tries the next address of the name at once; only when all have failed it is an error."""
        if line.may_try_elsewhere():
            self.leave(line)
            self.start(line, line.life)
        else:
            self.broke(line, error)

    def leave(self, line: Line) -> None:
        """Closes it; epoll forgets it by that."""
        if line.sock is not None:
            self.by_number.pop(line.sock.fileno(), None)
            line.close()
        line.steps, line.since_ns = None, NEVER

    def retire(self, line: Line) -> None:
        """It is not wanted now, and may be opened again."""
        self.leave(line)
        line.is_down, line.retry_ns = True, 0

    def broke(self, line: Line, error: Exception) -> None:
        """Counts the error; a connection is opened again after a pause."""
        self._tally.errors[kind_of(error)] += 1
        if self._reason is None:
            self._reason = words_of(error)
        self.leave(line)
        line.settled = False
        line.is_down = True
        line.pause()
        self._lost(line)

    def close(self) -> None:
        for line in self._all:
            line.close()

    @staticmethod
    def _is_open(line: Line) -> bool:
        """Whether it can make calls."""
        return line.sock is not None and line.steps is None

    def _open_if_due(self, line: Line, now: int, opening: int, hold: Hold | None) -> bool:
        if not line.is_down or now < line.retry_ns or opening >= _MOST_OPENING:
            return False
        if self._anew and hold is None:
            line.is_down = False
            self._free(line)
            return False
        begun = perf_counter_ns()
        self.start(line, lambda connected: self._life(line, hold, begun, connected=connected))
        return True

    def _life(
        self, line: Line, hold: Hold | None, begun: int, *, connected: bool
    ) -> Iterator[None]:
        yield from line.opened(connected)
        self._tally.connects.append(perf_counter_ns() - begun)
        if self._cipher is None:
            self._cipher = line.cipher
        yield from line.asked(self._requests.look_up())
        if hold is Hold.EVENTS:
            register = Large.CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY
            yield from line.called(register, EVENTS_ARGUMENTS)
        if hold is not None:
            yield from line.holding()
