"""Those who are leaving: they have been told all that there is to say, and may not know it yet.

A client that still writes when its connection is closed gets a reset: what it was told last may be
lost with that, and its next write kills it by SIGPIPE, as libvirt's clients do not ignore that,
before it has told anybody why it was refused. So it is told that nothing follows, what it says is
thrown away, and its connection is closed once it has closed its own; but after a second, or so many
bytes, in any case.

Each takes a descriptor, which is counted (admission/capacity.py), and neither a place nor a task:
one task looks after all of them. When there is no room for one more, somebody of the holder that
has the most here is gone at once.
"""

import os
import select
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from proxyd.admission.holder import Holder
from proxyd.endpoint.contract import NOTHING, Endpoint, HungUp

PATIENCE_S: Final = 1.0
MOST_BYTES: Final = 65536  # libvirt's clients have a call or a goodbye on their way, no more
_AT_ONCE: Final = 16
_COMES: Final = select.EPOLLIN | select.EPOLLRDHUP
_SCRATCH: Final = memoryview(bytearray(16384))

# Takes the endpoint of one who has been told all over.
Part: TypeAlias = Callable[[Endpoint, Holder], None]


def part_at_once(endpoint: Endpoint, _: Holder) -> None:
    """Where nobody looks after those who leave."""
    endpoint.close()


@dataclass(eq=False, slots=True)
class _Leaver:
    endpoint: Endpoint
    holder: Holder
    until: float
    left: int = MOST_BYTES


class Leaving:
    """`most` is how many there may be at one time; `run` is the task that looks after them.

    While it does not run, whoever leaves is closed at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._epoll: select.epoll | None = None
        self._here: dict[int, _Leaver] = {}  # by descriptor, in the order in which they came
        self._somebody = trio.Event()
        self._nobody = trio.Event()

    def part(self, endpoint: Endpoint, holder: Holder) -> None:
        """Says that nothing follows, and closes it when the time has come. Never raises."""
        endpoint.end_write()
        epoll = self._epoll
        if self._most <= 0 or epoll is None:
            endpoint.close()
            return
        if len(self._here) >= self._most:
            self._make_room(epoll)
        descriptor = endpoint.fileno()
        try:
            epoll.register(descriptor, _COMES)
        except (OSError, ValueError):  # no memory to watch it, or it is closed already
            endpoint.close()
            return
        self._here[descriptor] = _Leaver(endpoint, holder, trio.current_time() + PATIENCE_S)
        self._somebody.set()

    async def gone(self) -> None:
        """Returns when nobody is here."""
        while self._here:
            await self._nobody.wait()

    async def run(self) -> None:
        """Looks after them, and closes them at the end."""
        epoll = self._epoll = select.epoll()
        try:
            while True:
                await self._somebody.wait()
                await self._wait(epoll)
                self._look(epoll)
                if not self._here:
                    self._somebody = trio.Event()
                    self._nobody.set()
                    self._nobody = trio.Event()
        finally:
            self._epoll = None
            for descriptor in list(self._here):
                self._close(epoll, descriptor)
            epoll.close()
            self._nobody.set()

    async def _wait(self, epoll: select.epoll) -> None:
        """Until one of them says something, or has had its time."""
        first = next(iter(self._here.values()), None)
        with trio.move_on_at(trio.current_time() if first is None else first.until):
            try:
                await trio.lowlevel.wait_readable(epoll.fileno())
            except OSError:  # no memory to watch it
                await trio.sleep(PATIENCE_S)

    def _look(self, epoll: select.epoll) -> None:
        for descriptor, _ in epoll.poll(0, _AT_ONCE):
            if self._is_over(self._here[descriptor]):
                self._close(epoll, descriptor)
        now = trio.current_time()
        for descriptor, leaver in list(self._here.items()):
            if leaver.until > now:
                break  # those behind it came later
            self._close(epoll, descriptor)

    def _make_room(self, epoll: select.epoll) -> None:
        """For one more: the first of the holder that has the most."""
        ((holder, _),) = Counter(each.holder for each in self._here.values()).most_common(1)
        first = next(fd for fd, each in self._here.items() if each.holder == holder)
        self._close(epoll, first)

    def _close(self, epoll: select.epoll, descriptor: int) -> None:
        leaver = self._here.pop(descriptor)
        epoll.unregister(descriptor)
        leaver.endpoint.close()

    @staticmethod
    def _is_over(leaver: _Leaver) -> bool:
        """Takes what it says; whether that was all, or too much."""
        try:
            got = _discarded(leaver.endpoint)
        except (HungUp, OSError):
            return True
        if got == NOTHING:
            return False
        leaver.left -= got
        return got <= 0 or leaver.left <= 0


def _discarded(endpoint: Endpoint) -> int:
    """As read_into answers. Raises HungUp and OSError."""
    if not endpoint.may_splice:  # encrypted bytes are thrown away as they come
        try:
            return os.readv(endpoint.fileno(), [_SCRATCH])
        except BlockingIOError:
            return NOTHING
    return endpoint.read_into(_SCRATCH)
