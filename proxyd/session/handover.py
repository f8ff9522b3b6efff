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
import time
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
from proxyd.relay.parting import Partings
from proxyd.relay.pipes import MOST, HeldMemory, PipePool
from proxyd.relay.trail import Trail
from proxyd.wire.state import State

# Sockets in whose queue descriptors are left find a courier in this time, which starts in 30 ms.
_SETTLES_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.5  # how busy they are
_LOAD_STEPS: Final = 4  # of a processor; what differs by less is alike

log = logging.getLogger("proxyd.relay")


class RelayDied(Exception):
    """The relay thread ended by an error of its own: no session can go on."""


class Relay:
    """The relay threads as the control plane sees them. `on_end` runs in the trio thread.

    There is one thread for bytes that are passed on as they are, which would wait for the
    interpreter's lock, were there more. Those that are encrypted on the way have `encrypting`
    others, since OpenSSL and libkrb5 work without that lock. A session goes where the least is
    done, and stays there.

    `pipes` is how many there may be at one time, `partings` likewise of each kind of sessions, and
    `parting_timeout_s` gives how long one may take; 0 is not at all.
    """

    def __init__(
        self,
        on_end: Callable[[RelayedPair], None],
        *,
        pipes: int = MOST,
        partings: int = MOST_PARTINGS,
        parting_timeout_s: Callable[[], int] = lambda: 0,
        encrypting: int = 1,
    ) -> None:
        self._on_end = on_end
        self._token = trio.lowlevel.current_trio_token()
        self._parting_timeout_s = parting_timeout_s
        self._most_partings = partings
        self._partings: list[Partings] = []  # of those that encrypt
        self._memory = HeldMemory()  # likewise
        self._one_has_ended = trio.Event()
        self._homes: dict[int, _Thread] = {}  # by the numbers of open sessions
        plain = RelayLoop(
            self._report,
            pipes=PipePool(pipes),
            parting_timeout_s=parting_timeout_s,
            partings=partings,
            name="plain",
        )
        self._plain = _Thread("relay", plain, self._token, self._one_has_ended.set)
        self._encrypting = tuple(self._encrypting_thread() for _ in range(encrypting))
        self._encrypts = trio.Event()  # there are sessions among which loads differ
        self.loops = tuple(each.loop for each in self._threads)
        COURIERS.on_hanging = self._end_all_of

    @property
    def _threads(self) -> "tuple[_Thread, ...]":
        return self._plain, *self._encrypting

    def _encrypting_thread(self) -> "_Thread":
        """Another one. Raises OSError."""
        number = len(self._partings) + 1
        loop = RelayLoop(
            self._report,
            pipes=PipePool(0, memory=self._memory),  # what is encrypted goes through no pipe
            parting_timeout_s=self._parting_timeout_s,
            partings=self._most_partings,
            beside=self._partings,
            name="encrypted" if number == 1 else f"encrypted-{number}",
        )
        name = "relay-crypto" if number == 1 else f"relay-crypto-{number}"
        return _Thread(name, loop, self._token, self._one_has_ended.set)

    async def run(self) -> None:
        """Lives as long as the relay threads. Raises RelayDied when one dies; ends by `stop`.

        A cancellation stops the threads as well, and waits until they have closed every session.
        """
        for thread in self._threads:
            thread.start()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look_at_loads)
                await self._one_has_ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            for thread in self._threads:
                thread.loop.stop(STOPPED)  # harmless when it has stopped by itself
            with trio.CancelScope(shield=True):
                for thread in self._threads:
                    await thread.over.wait()
                if not COURIERS.settled(0):
                    await trio.to_thread.run_sync(COURIERS.settled, _SETTLES_S)
        if not all(thread.orderly for thread in self._threads):
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
        home = self._home_for(client)
        loop = home.loop
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
        pair.home = loop.name
        self._moves_in(pair, home)
        loop.adopt(pair)
        return pair

    async def freeze(self, number: int) -> Frozen | None:
        """Takes a session out of its relay thread as it is, so that it can `thaw` or be `let_go`.

        None where there is no such session, it cannot move (`pair.moves`), or not just now. Waits
        for the turn of the thread alone; one that is given up is thawed when it comes.
        """
        home = self._homes.get(number)
        return None if home is None else await self._frozen_in(home.loop, number)

    def thaw(self, frozen: Frozen) -> None:
        """Nobody else goes on with it: it does here, and ends if it was dropped meanwhile."""
        home = self._homes.get(frozen.pair.number)
        if home is not None:
            home.loop.thaw(frozen)

    def let_go(self, frozen: Frozen) -> None:
        """Another process goes on with it, and reports its end."""
        home = self._homes.get(frozen.pair.number)
        if home is not None:
            self._moves_out(frozen.pair)
            home.loop.let_go(frozen)

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
        loop = self._home_for(client).loop
        pair = pair_from(
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
        pair.home = loop.name
        return pair

    def go_on_with(self, pair: RelayedPair) -> None:
        """Gives a pair that was restored to its relay thread."""
        home = next(each for each in self._threads if each.loop.name == pair.home)
        self._moves_in(pair, home)
        home.loop.resume(pair)

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
        home = self._homes.get(number)
        if home is not None:
            home.loop.drop(number, reason)

    def record(self, pair: RelayedPair, trail: Trail | None) -> None:
        """Has the calls of a live session recorded in another way from now on, or not at all."""
        home = self._homes.get(pair.number)
        if home is not None:
            home.loop.record(pair, trail)

    def restrict(self, pair: RelayedPair, guards: Guards, pace: Pace | None = None) -> None:
        """What the client of a live session may do from now on, and how many calls a second."""
        home = self._homes.get(pair.number)
        if home is not None:
            home.loop.restrict(pair, guards, pace)

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

    def _home_for(self, client: Endpoint) -> "_Thread":
        """Where a new session goes: to the thread that does the least, then has the fewest."""
        if client.may_splice:
            return self._plain
        return min(self._encrypting, key=lambda each: (each.load, each.sessions))

    def _moves_in(self, pair: RelayedPair, home: "_Thread") -> None:
        self._homes[pair.number] = home
        home.sessions += 1
        home.load += 1.0  # until it is known better
        if home is not self._plain and len(self._encrypting) > 1:
            self._encrypts.set()

    def _moves_out(self, pair: RelayedPair) -> None:
        home = self._homes.pop(pair.number, None)
        if home is None:  # it was let go while its thread ended, and ended it
            return
        home.sessions -= 1
        if not home.sessions:
            home.load = 0.0

    async def _look_at_loads(self) -> None:
        """As long as there is a choice."""
        while True:
            await self._encrypts.wait()
            for thread in self._encrypting:
                thread.look(time.monotonic_ns())
            await trio.sleep(_LOOK_EVERY_S)
            if not any(thread.sessions for thread in self._encrypting):
                self._encrypts = trio.Event()

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

    def _report(self, pair: RelayedPair) -> None:
        _call(self._token, self._has_ended, pair)

    def _has_ended(self, pair: RelayedPair) -> None:
        self._moves_out(pair)
        self._on_end(pair)


class _Thread:
    """One relay thread; `orderly` is whether it ended because it was told to.

    `sessions` are those that it was given, `load` how much of a processor it took lately, in
    quarters; each that has come since counts for a whole one. Both are the control plane's.
    """

    def __init__(
        self,
        name: str,
        loop: RelayLoop,
        token: trio.lowlevel.TrioToken,
        on_end: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.over = trio.Event()
        self.orderly = False
        self.sessions = 0
        self.load = 0.0
        self._name = name
        self._token = token
        self._on_end = on_end
        self._clock: int | None = None  # of the processor's time that it took
        self._looked_ns = self._took_ns = 0

    def start(self) -> None:
        threading.Thread(target=self._live, name=self._name, daemon=True).start()

    def look(self, now_ns: int) -> None:
        """Finds out its load since the last look."""
        if self._clock is None:
            return
        try:
            took_ns = time.clock_gettime_ns(self._clock)
        except OSError:  # it has ended
            return
        passed_ns, worked_ns = now_ns - self._looked_ns, took_ns - self._took_ns
        if self._looked_ns and passed_ns > 0:
            self.load = round(_LOAD_STEPS * worked_ns / passed_ns) / _LOAD_STEPS
        self._looked_ns, self._took_ns = now_ns, took_ns

    def _live(self) -> None:
        try:
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
            self.loop.run()
            self.orderly = True
        except BaseException:
            log.exception("the relay thread died")
            raise
        finally:
            _call(self._token, self._is_over)

    def _is_over(self) -> None:
        self.over.set()
        self._on_end()


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
