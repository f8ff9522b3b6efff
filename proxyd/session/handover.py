"""The only place where trio and the relay thread meet.

Control to data: `adopt`, `drop` and their like, which put an order on the loop's deque. Data to
control: the relay's report of a session's end, sent through the trio token, and likewise a session
that was frozen so that another process can go on with it. Neither waits for the other.
"""

import functools
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Final

import trio

from proxyd.config.addresses import daemon_at
from proxyd.endpoint.ancillary import ROOT
from proxyd.endpoint.contract import Endpoint
from proxyd.endpoint.couriers import COURIERS
from proxyd.endpoint.moving import endpoint_from
from proxyd.endpoint.sasl import Layer
from proxyd.relay.guards import GUARDED, Guards
from proxyd.relay.loop import STOPPED, RelayLoop
from proxyd.relay.moving import Frozen, ends_in, pair_from
from proxyd.relay.pace import Pace
from proxyd.relay.pair import RelayedPair
from proxyd.relay.parting import MOST as MOST_PARTINGS
from proxyd.relay.pipes import MOST, PipePool
from proxyd.relay.trail import Trail
from proxyd.wire.state import State

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

    def adopt(  # noqa: PLR0913 (called in one place, by keywords)
        self,
        number: int,
        client: Endpoint,
        backend: Endpoint,
        *,
        now_ns: int,
        owner: str,
        daemon: str = "",
        readonly: bool,
        guards: Guards = GUARDED,
        trail: Trail | None = None,
        pace: Pace | None = None,
    ) -> RelayedPair:
        """Makes the pair of an open session and gives it to a relay thread."""
        loop = self._loop_of(client)
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
            guards=guards,
            trail=trail,
            pace=pace,
        )
        loop.adopt(pair)
        return pair

    async def freeze(self, number: int) -> Frozen | None:
        """Takes a session out of its relay thread as it is, so that it can `thaw` or be `let_go`.

        None where there is no such session, it cannot move (`pair.moves`), or not just now. Waits
        for the turn of the thread alone; one that is given up is thawed when it comes.
        """
        for loop in self.loops:
            frozen = await self._frozen_in(loop, number)
            if frozen is not None:
                return frozen
        return None

    def thaw(self, frozen: Frozen) -> None:
        """Nobody else goes on with it: it does here, and ends if it was dropped meanwhile."""
        self._loop_of(frozen.pair.client.endpoint).thaw(frozen)

    def let_go(self, frozen: Frozen) -> None:
        """Another process goes on with it, and reports its end."""
        self._loop_of(frozen.pair.client.endpoint).let_go(frozen)

    def restored(
        self,
        state: object,
        client_sock: socket.socket,
        backend_sock: socket.socket,
        *,
        guards: Guards = GUARDED,
        trail: Trail | None = None,
        pace: Pace | None = None,
    ) -> RelayedPair:
        """The pair that had this state, at rest: not a byte is touched until `go_on_with` it.

        Raises ValueError. Both sockets are the caller's until it goes on.
        """
        of_client, of_backend = ends_in(state)
        client = endpoint_from(of_client, client_sock, _layer_from)
        backend = endpoint_from(of_backend, backend_sock, _layer_from)
        loop = self._loop_of(client)
        return pair_from(
            state,
            client,
            backend,
            pipes=loop.pipes,
            figures_of=lambda daemon: loop.figures_of(daemon_at(daemon)),
            clock=loop.clock,
            guards=guards,
            trail=trail,
            pace=pace,
        )

    def go_on_with(self, pair: RelayedPair) -> None:
        """Gives a pair that was restored to its relay thread."""
        self._loop_of(pair.client.endpoint).resume(pair)

    def resume(
        self,
        state: object,
        client_sock: socket.socket,
        backend_sock: socket.socket,
        *,
        guards: Guards = GUARDED,
        trail: Trail | None = None,
        pace: Pace | None = None,
    ) -> RelayedPair:
        """Goes on with a session that had this state in another process. Raises ValueError."""
        pair = self.restored(
            state, client_sock, backend_sock, guards=guards, trail=trail, pace=pace
        )
        self.go_on_with(pair)
        return pair

    def drop(self, number: int, reason: str) -> None:
        """Ends a session at once, on both sides; one that has ended already is fine."""
        for loop in self.loops:
            loop.drop(number, reason)

    def record(self, pair: RelayedPair, trail: Trail | None) -> None:
        """Has the calls of a live session recorded in another way from now on, or not at all."""
        self._loop_of(pair.client.endpoint).record(pair, trail)

    def restrict(self, pair: RelayedPair, guards: Guards, pace: Pace | None = None) -> None:
        """What the client of a live session may do from now on, and how many calls a second."""
        self._loop_of(pair.client.endpoint).restrict(pair, guards, pace)

    def _end_all_of(self, owner: str) -> None:
        """What this user has passed cannot be closed. Root has other ways to do harm."""
        if owner == ROOT:
            return
        for loop in self.loops:
            loop.drop_all_of(owner, "a descriptor that its user has passed cannot be closed")

    def end_quiet(self, *, all_of_them: bool = True) -> None:
        """Ends the sessions that have no call under way, since proxyd stops; or only those that
        cannot go on elsewhere."""
        for loop in self.loops:
            loop.end_quiet(STOPPED, all_of_them=all_of_them)

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

    def _loop_of(self, client: Endpoint) -> RelayLoop:
        return self._plain if client.may_splice else self._crypto

    async def _frozen_in(self, loop: RelayLoop, number: int) -> Frozen | None:
        answered = trio.Event()
        found: Frozen | None = None
        given_up = False

        def done(frozen: Frozen | None) -> None:
            nonlocal found
            found = frozen
            answered.set()
            if frozen is not None and given_up:
                loop.thaw(frozen)

        loop.freeze(number, functools.partial(_call, self._token, done))
        try:
            await answered.wait()
        except trio.Cancelled:
            given_up = True
            if found is not None:
                loop.thaw(found)
            raise
        return found

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


def _layer_from(state: State) -> Layer:
    from proxyd.sasl.gssapi import layer_from  # noqa: PLC0415 (Kerberos takes memory)

    return layer_from(state)


def _call(token: trio.lowlevel.TrioToken, function: Callable[..., object], *args: object) -> None:
    try:
        token.run_sync_soon(function, *args)
    except trio.RunFinishedError:
        # The control plane is gone, so nobody keeps a roster that could be wrong.
        log.debug("a session ended after the control plane had")
    except OSError as error:
        # It is in trio's queue, and is taken from there as soon as trio wakes for another cause.
        log.warning("the control plane was not woken: %s", os.strerror(error.errno or 0))
