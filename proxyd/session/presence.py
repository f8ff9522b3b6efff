"""Notices that a client has gone while something is decided about it.

Nothing is read from a client then (negotiation/server.py), so its end would go unseen: a prompt of
polkit's would stay on somebody's screen, and a place would be held until the deadline. One task
looks at all such clients once a second; whoever is decided about for less is never looked at, and
costs nothing.

A client that has closed its half and waits for an answer counts as gone, as it does with libvirt.
"""

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio

_LOOK_EVERY_S: Final = 1.0
_ENDS: Final = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Presence:
    """Clients that may not go unnoticed; `run` is the task that looks."""

    def __init__(self) -> None:
        self._watched: dict[int, Callable[[], None]] = {}
        self._somebody = trio.Event()

    @contextmanager
    def watched(self, fd: int, gone: Callable[[], None]) -> Iterator[None]:
        """Calls `gone` when the peer of this socket ends before the block does."""
        self._watched[fd] = gone
        self._somebody.set()
        try:
            yield
        finally:
            self._watched.pop(fd, None)

    async def run(self) -> None:
        while True:
            await self._somebody.wait()
            await trio.sleep(_LOOK_EVERY_S)
            if self._watched:
                self._look()
            else:
                self._somebody = trio.Event()

    def _look(self) -> None:
        poll = select.poll()
        for fd in self._watched:
            poll.register(fd, select.POLLRDHUP)
        with suppress(OSError):  # ENOMEM: the next look tells
            for fd, events in poll.poll(0):
                if events & _ENDS:
                    self._watched.pop(fd)()
