"""The end of a daemon that nobody needs (reference/config.md, section 8)."""

import logging
from collections.abc import Awaitable, Callable, Sequence

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
            idles = self.seconds > 0 and not self._anybody()
            with trio.move_on_after(self.seconds if idles else float("inf")) as patience:
                await self._change()
            if patience.cancelled_caught and not self._anybody():
                log.info("no client for %d s: exiting", self.seconds)
                self._end()
                return

    def _anybody(self) -> bool:
        return any(crowd.clients for crowd in self._crowds)

    async def _change(self) -> None:
        """Returns when somebody has come or gone, or the time was changed."""
        async with trio.open_nursery() as nursery:

            async def first(wait: Callable[[], Awaitable[None]]) -> None:
                await wait()
                nursery.cancel_scope.cancel()

            for crowd in self._crowds:
                nursery.start_soon(first, crowd.wait_change)
            nursery.start_soon(first, self._changed.wait)
