"""The only place where trio and the relay thread meet.

Control to data: `adopt` and `drop`, which put an order on the loop's deque. Data to control: the
relay's report of a session's end, sent through the trio token. Neither waits for the other.
"""

import logging
import threading
from collections.abc import Callable

import trio

from proxyd.endpoint.contract import Endpoint
from proxyd.relay.loop import STOPPED, RelayLoop
from proxyd.relay.pair import RelayedPair

log = logging.getLogger("proxyd.relay")


class RelayDied(Exception):
    """The relay thread ended by an error of its own: no session can go on."""


class Relay:
    """The relay thread as the control plane sees it. `on_end` runs in the trio thread."""

    def __init__(self, on_end: Callable[[RelayedPair], None]) -> None:
        self._on_end = on_end
        self._token = trio.lowlevel.current_trio_token()
        self._over = trio.Event()
        self._orderly = False
        self.loop = RelayLoop(self._report)

    async def run(self) -> None:
        """Lives as long as the relay thread. Raises RelayDied when it dies; ends by `stop`.

        A cancellation stops the thread as well, and waits until it has closed every session.
        """
        threading.Thread(target=self._thread, name="relay", daemon=True).start()
        try:
            await self._over.wait()
        finally:
            self.loop.stop(STOPPED)  # harmless when it has stopped by itself
            with trio.CancelScope(shield=True):
                await self._over.wait()
        if not self._orderly:
            raise RelayDied("the relay thread died, see its traceback above")

    def adopt(
        self, number: int, client: Endpoint, backend: Endpoint, *, now_ns: int, readonly: bool
    ) -> RelayedPair:
        """Makes the pair of an open session and gives it to the relay thread."""
        pair = RelayedPair(
            number,
            client,
            backend,
            pipes=self.loop.pipes,
            figures=self.loop.figures,
            now_ns=now_ns,
            readonly=readonly,
        )
        self.loop.adopt(pair)
        return pair

    def drop(self, number: int, reason: str) -> None:
        """Ends a session at once, on both sides; one that has ended already is fine."""
        self.loop.drop(number, reason)

    def end_quiet(self) -> None:
        """Ends the sessions that have no call under way, since proxyd stops."""
        self.loop.end_quiet(STOPPED)

    async def answers(self) -> None:
        """Returns when the relay thread has taken an order; never, if it is stuck or has ended."""
        answered = trio.Event()
        self.loop.ask(lambda: self._call(answered.set))
        await answered.wait()

    def _thread(self) -> None:
        try:
            self.loop.run()
            self._orderly = True
        except BaseException:
            log.exception("the relay thread died")
            raise
        finally:
            self._call(self._over.set)

    def _report(self, pair: RelayedPair) -> None:
        self._call(self._on_end, pair)

    def _call(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            # The control plane is gone, so nobody keeps a roster that could be wrong.
            log.debug("a session ended after the control plane had")
