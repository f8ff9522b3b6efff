"""The end of a daemon that nobody needs (docs/protocol/process.md, section 5)."""

import logging
import math
from collections.abc import Callable, Sequence

import trio

from proxyd.admission.admission import Admission

log = logging.getLogger("daemon.virtproxyd")


class IdleExit:
    """Ends the daemon when no client was connected for so long; 0 seconds mean never.

    Clients of every listener count, those of the admin sockets, too. While the daemon is drained it
    does not end: the next one would let in whom this one turns away. `end` must let nobody in any
    more at once: who connects at that very moment waits for the next daemon at the socket.
    """

    def __init__(self, seconds: int, crowds: Sequence[Admission], end: Callable[[], None]) -> None:
        self.seconds = seconds
        self._crowds = crowds
        self._end = end
        self._deserted = self._is_deserted()
        self._changed = trio.Event()
        for crowd in crowds:
            crowd.on_change = self._look

    def change(self, seconds: int) -> None:
        """From now on, and counted from now."""
        self.seconds = seconds
        self._wake()

    async def run(self) -> None:
        """Returns when it has ended the daemon."""
        while True:
            # Taken before anybody is counted: what happens from here on is not missed.
            change = self._changed
            idles = self.seconds > 0 and self._is_deserted()
            with trio.move_on_after(self.seconds if idles else math.inf):
                await change.wait()
            if not change.is_set():
                log.info("no client for %d s: exiting", self.seconds)
                self._end()
                return

    def _is_deserted(self) -> bool:
        return not any(crowd.clients or crowd.callers or crowd.draining for crowd in self._crowds)

    def _look(self) -> None:
        """Somebody has come or gone: that matters for the first and the last one alone."""
        deserted = self._is_deserted()
        if deserted is not self._deserted:
            self._deserted = deserted
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
