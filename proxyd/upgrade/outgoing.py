"""The side that gives the daemon away.

    start the program ── offer ── ready? ── who is here ── close the doors ── take ── taken?
        ── one session after the other ── finished ── retired, until nobody is left

Until `finished` this process can take back all that it has not given whole: the listening sockets
stay open here, a session's sockets until the other process has said that it has them. It says so
before it touches a byte of theirs, so there is no moment in which both serve a session, and none in
which nobody would. What cannot move stays here (retirement.py).

Whatever goes wrong before: the other process is ended first, then its last words are heard, and
then what stood still goes on here and its channel is closed. A session that it says to have is not
among that: it has ended with it.
"""

import logging
import math
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from subprocess import SubprocessError
from typing import Any, Final, Protocol, TypeVar

import trio

from proxyd.session.handover import Relay
from proxyd.session.roster import Client, Roster
from proxyd.upgrade.channel import SLICE_S, Channel, ChannelBroken
from proxyd.upgrade.documents import PAGE
from proxyd.upgrade.format import FORMAT, Unreadable
from proxyd.upgrade.incoming import Process
from proxyd.upgrade.moves import (
    AT_ONCE,
    BREATH_S,
    LOOK_EVERY_S,
    UNDER_WAY,
    Moves,
    News,
    can_move,
)
from proxyd.upgrade.relaunch import Relaunch, Started, has_ended
from proxyd.upgrade.retirement import Retirement

# Keys on a slow disk, a name service that thinks: as long as a start may take.
READY_S: Final = 60.0
# To put a file in place and to say so.
TAKEN_S: Final = 10.0
# That nothing at all comes from a process that has sessions to take.
SILENT_S: Final = 10.0
_PATIENCE_S: Final = 2.0  # with those in the first row: a courier needs milliseconds
_CALLED_OFF_S: Final = 0.5
_ENDS_S: Final = 1.0  # to give back what it has taken, as long as it serves nobody
_DIES_IN_S: Final = 5.0

_Got = TypeVar("_Got")

log = logging.getLogger("daemon.upgrade")


class UpgradeFailed(Exception):
    """This process goes on to serve; the text says why."""


class Serving(Protocol):
    """The daemon, as far as it is handed over. All but `offer` is cheap and never fails."""

    def offer(self) -> tuple[dict[str, Any], list[int]]:
        """What the next process needs to start, with the descriptors of what listens."""

    def close_doors(self) -> None:
        """Accepts nobody, who comes waits in the backlog; and gives nobody a place."""

    def open_doors(self) -> None: ...

    def callers(self) -> Iterator[tuple[str, socket.socket]]:
        """Who was accepted and has no place: by which door, and the socket, which is the taker's.
        Nothing was read of it."""

    def handed_over(self) -> dict[str, Any]:
        """What holds at this moment, which the next one goes on with."""

    def take_back(self) -> None:
        """The next one had begun to serve, and is gone."""

    def name_successor(self, pid: int) -> None:
        """To systemd."""

    def retire(self, pid: int) -> None:
        """That one is the daemon from now on."""

    def stop_as_well(self, reason: str) -> None:
        """That one ends, and so do all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an upgrade came to."""

    pid: int
    moved: int
    staying: int
    seconds: float


class HandOver:
    """One attempt. `processes` are those that have handed over to this one and are still there."""

    def __init__(
        self,
        serving: Serving,
        relaunch: Relaunch,
        relay: Relay,
        roster: Roster,
        processes: Callable[[], Sequence[Process]],
    ) -> None:
        self._serving = serving
        self._relaunch = relaunch
        self._relay = relay
        self._roster = roster
        self._processes = processes
        self._gives = False  # the other process serves by now
        self._hurried = False

    async def run(self) -> tuple[Outcome, Retirement]:
        """Raises UpgradeFailed, and then everything is as it was."""
        began = trio.current_time()
        started = await self._started()
        news = News(started.channel, self._roster)
        moves = Moves(started.channel, self._relay, self._roster, started.pid, news)
        moves.on_stop = self._serving.stop_as_well
        started.channel.patience_s = SILENT_S
        try:
            await self._have_it_start(started)
            await news.begin()  # while all are served as ever
            async with self._with_doors_closed(moves, started):
                await self._give(moves)
        except BaseException as error:
            news.end()
            with trio.CancelScope(shield=True):
                await _call_off(started, _ENDS_S)
            failed = _as_failed(error, started.why())
            started.close()
            if failed is error:
                raise
            raise failed from error
        self._serving.retire(started.pid)
        outcome = Outcome(
            pid=started.pid,
            moved=moves.moved,
            staying=sum(not client.process for client in self._roster.clients.values()),
            seconds=trio.current_time() - began,
        )
        return outcome, Retirement(moves, self._roster, started, self._processes())

    def hurry(self) -> bool:
        """The daemon is to end: no more sessions are moved. False where that is nothing to wait
        for, since none has been."""
        self._hurried = True
        return self._gives

    async def _started(self) -> Started:
        try:
            return await trio.to_thread.run_sync(self._relaunch.start)
        except (OSError, RuntimeError, SubprocessError) as error:  # of which one is about threads
            why = str(error)
            if isinstance(error, OSError):
                what = f"{error.filename}: " if error.filename else ""
                why = f"{what}{error.strerror}"
            raise UpgradeFailed(f"the program cannot be started: {why}") from error

    async def _give(self, moves: Moves) -> None:
        channel = moves.channel
        # Who had been told of a client before the doors were closed accepts one more.
        await trio.lowlevel.checkpoint()
        await moves.news.tell()
        await channel.send("take", self._serving.handed_over())
        self._gives = True
        await _answer(channel, "taken", TAKEN_S)
        await self._hand_on_callers(channel)
        await self._move_all(moves)
        await moves.news.tell()
        # In this order: whoever is the daemon says so to systemd.
        self._serving.name_successor(moves.pid)
        await channel.send("finished")

    async def _hand_on_callers(self, channel: Channel) -> None:
        """The other process counts all places, and gives them away."""
        for at, (door, sock) in enumerate(self._serving.callers()):
            with sock:
                document = {"door": door}
                await channel.send("caller", document, [sock.fileno()])
            if at % PAGE == PAGE - 1:
                await trio.sleep(BREATH_S)

    @asynccontextmanager
    async def _with_doors_closed(self, moves: Moves, started: Started) -> AsyncIterator[None]:
        self._serving.close_doors()
        try:
            yield
        except BaseException:
            with trio.CancelScope(shield=True):
                # Dead before anything goes on here that it could have, too.
                await _call_off(started, 0)
                await moves.last_words()
            moves.news.end()
            moves.give_up()
            self._serving.take_back()
            self._serving.open_doors()
            raise

    async def _have_it_start(self, started: Started) -> None:
        offer, descriptors = self._serving.offer()
        offered = {**offer, "format": FORMAT}
        await started.channel.send("offer", offered, descriptors)
        await _answer(started.channel, "ready", READY_S)

    async def _move_all(self, moves: Moves) -> None:
        """All that can be moved within a moment."""
        async with trio.open_nursery() as nursery:
            answered = trio.Event()

            async def hear() -> None:
                nonlocal answered
                while (message := await moves.channel.receive()) is not None:
                    with message:
                        await moves.heard(message)
                    answered.set()
                    answered = trio.Event()

            nursery.start_soon(hear)
            waiting = deque(self._roster.clients.values())
            again: list[Client] = []
            end = trio.current_time() + _PATIENCE_S
            while (waiting or again) and not self._hurried:
                if not waiting:
                    if trio.current_time() >= end:
                        break
                    await trio.sleep(LOOK_EVERY_S)
                    waiting.extend(again)
                    again.clear()
                while moves.under_way > UNDER_WAY - AT_ONCE:
                    await _in_time(answered.wait, SILENT_S)
                some = [waiting.popleft() for _ in range(min(AT_ONCE, len(waiting)))]
                again += await moves.move([each for each in some if can_move(each, self._roster)])
                await trio.sleep(BREATH_S)
            while moves.under_way:
                await _in_time(answered.wait, SILENT_S)
            nursery.cancel_scope.cancel()


async def _call_off(started: Started, ends_s: float) -> None:
    """The other process ends: by itself if it does so in this time. Doing so twice is harmless."""
    with suppress(ChannelBroken), trio.move_on_after(_CALLED_OFF_S):
        await started.channel.send("never mind")
    await has_ended(started, ends_s)
    started.kill()
    await has_ended(started, _DIES_IN_S)


def _as_failed(error: BaseException, why: str) -> BaseException:
    """What is raised instead: a cancellation, or why there was no upgrade."""
    causes = list(_leaves(error))
    for each in causes:
        if not isinstance(each, Exception):
            return each
    first = causes[0]
    match first:
        case ChannelBroken():
            return UpgradeFailed(f"{first}: {why}")
        case Unreadable() | OSError():
            return UpgradeFailed(str(first))
        case UpgradeFailed():
            return first
    log.error("an error of proxyd's own", exc_info=error)
    return UpgradeFailed("an error of proxyd's own: see its log")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


async def _in_time(what: Callable[[], Awaitable[_Got]], seconds: float) -> _Got:
    """Waits for it, begun anew each second: a time in which this process was stopped itself counts
    for one. Raises ChannelBroken."""
    end = math.ceil(seconds / SLICE_S)
    for _ in range(end):
        with trio.move_on_after(min(seconds, SLICE_S)):
            return await what()
    raise ChannelBroken(f"the new process was silent for {seconds:g} s")


async def _answer(channel: Channel, kind: str, seconds: float) -> None:
    message = await _in_time(channel.receive, seconds)
    said = "nothing" if message is None else message.kind
    if message is not None:
        message.close()
    if said != kind:
        raise ChannelBroken(f"the new process was to say {kind!r} and said {said!r}")
