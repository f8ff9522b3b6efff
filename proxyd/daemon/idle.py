"""The end of a daemon that nobody needs (reference/config.md, section 8)."""

import logging
from collections.abc import Callable, Sequence

import trio

from proxyd.session.admission import Admission

log = logging.getLogger("daemon.virtproxyd")


class IdleExit:
    """Ends the daemon when no client was connected for so long; 0 seconds mean never.

    Clients of every listener count, those of the admin sockets, too. `end` must let nobody in any
    more at once: who connects at that very moment waits for the next daemon at the socket.
    """

    def __init__(self, seconds: int, crowds: Sequence[Admission], end: Callable[[], None]) -> None:
        self.seconds = seconds
        self._crowds = crowds
        self._end = end
        self._changed = trio.Event()

    def change(self, seconds: int) -> None:
        """From now on, and counted from now."""
        self.seconds = seconds
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Returns when it has ended the daemon."""
        while True:
            # Taken before anybody is counted: what happens from here on is not missed.
            changes = [self._changed, *(crowd.changed for crowd in self._crowds)]
            idles = self.seconds > 0 and not any(crowd.clients for crowd in self._crowds)
            with trio.move_on_after(self.seconds if idles else float("inf")):
                await _first_of(changes)
            if not any(change.is_set() for change in changes):
                log.info("no client for %d s: exiting", self.seconds)
                self._end()
                return


async def _first_of(events: Sequence[trio.Event]) -> None:
    async with trio.open_nursery() as nursery:

        async def end_with(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(end_with, event)
