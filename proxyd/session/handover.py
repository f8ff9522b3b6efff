"""The only place where trio and the relay thread meet.

Control to data: `adopt` and `drop`, which put an order on the loop's deque. Data to control: the
relay's report of a session's end, sent through the trio token. Neither waits for the other.
"""

import functools
import logging
import os
import threading
from collections.abc import Callable
from typing import Final

import trio

from proxyd.config.addresses import daemon_at
from proxyd.endpoint.ancillary import ROOT
from proxyd.endpoint.contract import Endpoint
from proxyd.endpoint.couriers import COURIERS
from proxyd.relay.loop import STOPPED, RelayLoop
from proxyd.relay.pair import RelayedPair
from proxyd.relay.parting import MOST as MOST_PARTINGS
from proxyd.relay.pipes import MOST, PipePool
from proxyd.relay.trail import Trail

# Sockets in whose queue descriptors are left find a courier in this time, which starts in 30 ms.
_SETTLES_S: Final = 1.0

log = logging.getLogger("proxyd.relay")


class RelayDied(Exception):
    """The relay thread ended by an error of its own: no session can go on."""


class Relay:
    """The relay threads as the control plane sees them. `on_end` runs in the trio thread.

    There is one thread for bytes that are passed on as they are, and one for those that are
    encrypted on the way: a token of 64 KiB takes libkrb5 0.8 ms, which nobody else should wait for.
    `pipes` is how many there may be at one time, `partings` likewise of each thread, and
    `parting_timeout_s` gives how long one may take; 0 is not at all.
    """

    def __init__(
        self,
        on_end: Callable[[RelayedPair], None],
        *,
        pipes: int = MOST,
        partings: int = MOST_PARTINGS,
        parting_timeout_s: Callable[[], int] = lambda: 0,
    ) -> None:
        self._on_end = on_end
        self._token = trio.lowlevel.current_trio_token()
        self._running = [_Thread("relay", self._token), _Thread("relay-crypto", self._token)]
        # Bytes that are encrypted on the way go through no pipe.
        self._parting_timeout_s = parting_timeout_s
        self._plain, self._crypto = self.loops = tuple(
            RelayLoop(
                self._report,
                pipes=PipePool(most),
                parting_timeout_s=parting_timeout_s,
                partings=partings,
                name=name,
            )
            for name, most in (("plain", pipes), ("encrypted", 0))
        )
        COURIERS.on_hanging = self._end_all_of

    async def run(self) -> None:
        """Lives as long as the relay threads. Raises RelayDied when one dies; ends by `stop`.

        A cancellation stops the threads as well, and waits until they have closed every session.
        """
        for thread, loop in zip(self._running, self.loops, strict=True):
            thread.start(loop)
        try:
            await self._one_has_ended()
        finally:
            for loop in self.loops:
                loop.stop(STOPPED)  # harmless when it has stopped by itself
            with trio.CancelScope(shield=True):
                for thread in self._running:
                    await thread.over.wait()
                if not COURIERS.settled(0):
                    await trio.to_thread.run_sync(COURIERS.settled, _SETTLES_S)
        if not all(thread.orderly for thread in self._running):
            raise RelayDied("a relay thread died, see its traceback above")

    def adopt(
        self,
        number: int,
        client: Endpoint,
        backend: Endpoint,
        *,
        now_ns: int,
        owner: str,
        daemon: str = "",
        readonly: bool,
        trail: Trail | None = None,
    ) -> RelayedPair:
        """Makes the pair of an open session and gives it to a relay thread."""
        loop = self._plain if client.may_splice else self._crypto
        pair = RelayedPair(
            number,
            client,
            backend,
            pipes=loop.pipes,
            figures=loop.figures_of(daemon_at(daemon)),
            clock=loop.clock,
            now_ns=now_ns,
            owner=owner,
            daemon=daemon,
            parts=self._parting_timeout_s() > 0,
            readonly=readonly,
            trail=trail,
        )
        loop.adopt(pair)
        return pair

    def drop(self, number: int, reason: str) -> None:
        """Ends a session at once, on both sides; one that has ended already is fine."""
        for loop in self.loops:
            loop.drop(number, reason)

    def record(self, pair: RelayedPair, trail: Trail | None) -> None:
        """Has the calls of a live session recorded in another way from now on, or not at all."""
        loop = self._plain if pair.client.endpoint.may_splice else self._crypto
        loop.record(pair, trail)

    def _end_all_of(self, owner: str) -> None:
        """What this user has passed cannot be closed. Root has other ways to do harm."""
        if owner == ROOT:
            return
        for loop in self.loops:
            loop.drop_all_of(owner, "a descriptor that its user has passed cannot be closed")

    def end_quiet(self) -> None:
        """Ends the sessions that have no call under way, since proxyd stops."""
        for loop in self.loops:
            loop.end_quiet(STOPPED)

    def part_all(self) -> None:
        """Ends all sessions; the daemons are told in order, as long as the threads go on."""
        for loop in self.loops:
            loop.part_all(STOPPED)

    @property
    def partings(self) -> int:
        """Daemons' connections whose client is gone, on their way to an orderly end."""
        return sum(len(loop.partings.live) for loop in self.loops)

    async def answers(self) -> None:
        """Returns when each thread has taken an order; never, if one is stuck or has ended."""
        for loop in self.loops:
            answered = trio.Event()
            loop.ask(functools.partial(_call, self._token, answered.set))
            await answered.wait()

    async def _one_has_ended(self) -> None:
        async with trio.open_nursery() as nursery:

            async def wait(thread: _Thread) -> None:
                await thread.over.wait()
                nursery.cancel_scope.cancel()

            for thread in self._running:
                nursery.start_soon(wait, thread)

    def _report(self, pair: RelayedPair) -> None:
        _call(self._token, self._on_end, pair)


class _Thread:
    """One relay thread; `orderly` is whether it ended because it was told to."""

    def __init__(self, name: str, token: trio.lowlevel.TrioToken) -> None:
        self.over = trio.Event()
        self.orderly = False
        self._name = name
        self._token = token

    def start(self, loop: RelayLoop) -> None:
        threading.Thread(target=self._live, args=(loop,), name=self._name, daemon=True).start()

    def _live(self, loop: RelayLoop) -> None:
        try:
            loop.run()
            self.orderly = True
        except BaseException:
            log.exception("the relay thread died")
            raise
        finally:
            _call(self._token, self.over.set)


def _call(token: trio.lowlevel.TrioToken, function: Callable[..., object], *args: object) -> None:
    try:
        token.run_sync_soon(function, *args)
    except trio.RunFinishedError:
        # The control plane is gone, so nobody keeps a roster that could be wrong.
        log.debug("a session ended after the control plane had")
    except OSError as error:
        # It is in trio's queue, and is taken from there as soon as trio wakes for another cause.
        log.warning("the control plane was not woken: %s", os.strerror(error.errno or 0))
