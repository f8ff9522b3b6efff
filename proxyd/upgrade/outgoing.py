"""The side that gives the daemon away.

    start the program ── offer ── ready? ── who is here ── close the doors ── take ── taken?
        ── one session after the other ── finished ── retired, until nobody is left

Until `finished` this process can take back all that it has not given whole: the listening sockets
stay open here, a session's sockets until the other process has said that it has them. It says so
before it touches a byte of theirs, so there is no moment in which both serve a session, and none in
which nobody would. What cannot move stays here (Retirement).

Whatever goes wrong before: the other process is ended first, then its last words are heard, and
then what stood still goes on here and its channel is closed. A session that it says to have is not
among that: it has ended with it.
"""

import logging
import math
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from subprocess import SubprocessError
from typing import Any, Final, Protocol, TypeVar

import trio

from proxyd.admin.document import written
from proxyd.relay.moving import Frozen
from proxyd.session.handover import Relay
from proxyd.session.roster import Client, Roster, nobody_listens
from proxyd.upgrade.channel import SLICE_S, Channel, ChannelBroken, Message
from proxyd.upgrade.documents import PAGE, ClientTold, figures_of
from proxyd.upgrade.format import FORMAT, Unreadable
from proxyd.upgrade.incoming import Process
from proxyd.upgrade.relaunch import Relaunch, Started

# Keys on a slow disk, a name service that thinks: as long as a start may take.
READY_S: Final = 60.0
# To put a file in place and to say so.
TAKEN_S: Final = 10.0
# That nothing at all comes from a process that has sessions to take.
SILENT_S: Final = 10.0
_AT_ONCE: Final = 8  # sessions that are frozen in one go
_UNDER_WAY: Final = 2 * _AT_ONCE  # that stand still at one time
# Between two goes: whoever has the interpreter without a pause keeps it from the relay threads.
_BREATH_S: Final = 0.001
_LOOK_EVERY_S: Final = 0.05  # whether one can be moved that could not before
_PATIENCE_S: Final = 2.0  # with those in the first row: a courier needs milliseconds
_TELL_EVERY_S: Final = 1.0
_CALLED_OFF_S: Final = 0.5
_LEAVE_S: Final = 1.0
_ENDS_S: Final = 1.0  # to give back what it has taken, as long as it serves nobody
_DIES_IN_S: Final = 5.0
_ENDED_EVERY_S: Final = 0.005
_LAST_WORDS_S: Final = 1.0

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


class _News:
    """What the other process has to know of the clients that are here, from `begin` on."""

    def __init__(self, channel: Channel, roster: Roster) -> None:
        self._channel = channel
        self._roster = roster
        self._told: dict[int, object] = {}
        self._changed: dict[int, None] = {}
        self._next_figures = -math.inf

    async def begin(self) -> None:
        """Tells who is here."""
        self._roster.on_change = self._note
        clients = [client for client in self._roster.clients.values() if not client.process]
        for at in range(0, len(clients), PAGE):
            page = [written(ClientTold.of(each)) for each in clients[at : at + PAGE]]
            await self._channel.send("clients", {"clients": page})
            await trio.sleep(_BREATH_S)

    def end(self) -> None:
        self._roster.on_change = nobody_listens

    def _note(self, client: Client) -> None:
        if not client.process:
            self._changed[client.number] = None

    async def tell(self) -> None:
        """Who is new here, open or gone."""
        for number in list(self._changed):
            await self.tell_of(number)

    async def tell_of(self, number: int) -> None:
        if number not in self._changed:
            return
        del self._changed[number]
        client = self._roster.clients.get(number)
        if client is None:
            self._told.pop(number, None)
            await self._channel.send("gone", {"number": number})
        else:
            told = [written(ClientTold.of(client))]
            await self._channel.send("clients", {"clients": told})

    def forget(self, number: int) -> None:
        """It is the other one's now."""
        self._changed.pop(number, None)
        self._told.pop(number, None)

    async def tell_figures(self) -> None:
        """How much has been done here; now and then."""
        now = time.monotonic()
        if now < self._next_figures:
            return
        self._next_figures = now + _TELL_EVERY_S
        news: list[Any] = []
        for client in list(self._roster.clients.values()):
            figures = None if client.process else figures_of(client)
            if figures is not None and self._told.get(client.number) != figures:
                self._told[client.number] = figures
                news.append([client.number, written(figures)])
        if news:
            await self._channel.send("figures", {"of": news})


@dataclass(slots=True)
class _Moves:
    """Sessions that stand still, until the other process has said that it has them."""

    channel: Channel
    relay: Relay
    roster: Roster
    pid: int
    news: _News
    moved: int = 0
    refused: set[int] = field(default_factory=set)  # they stay: the other one could not read them
    on_stop: Callable[[str], None] = lambda _: None
    _under_way: deque[Frozen] = field(default_factory=deque)
    _kicked: dict[int, str] = field(default_factory=dict)
    _given: set[int] = field(default_factory=set)  # of those under way; others are about to be

    async def move(self, clients: Sequence[Client]) -> list[Client]:
        """Those that cannot be moved now; the others are on their way.

        They are frozen in one turn of the relay thread. A turn takes milliseconds where thousands
        of sessions are busy, and so would each of them.
        """
        found: dict[int, Frozen] = {}

        async def freeze(client: Client) -> None:
            if (frozen := await self.relay.freeze(client.number)) is not None:
                # In the order in which they are given and answered.
                self._under_way.append(frozen)
                found[client.number] = frozen

        async with trio.open_nursery() as nursery:
            for each in clients:
                nursery.start_soon(freeze, each)
        for frozen in found.values():
            await self._give(frozen)
        return [each for each in clients if each.number not in found]

    async def _give(self, frozen: Frozen) -> None:
        number = frozen.pair.number
        try:
            await self.news.tell_of(number)
            document = {"number": number, "state": frozen.state}
            await self.channel.send("session", document, frozen.descriptors)
            self._given.add(number)
        except Unreadable as error:  # it holds more than a message takes
            log.warning("session %d stays: %s", number, error)
            self._under_way.remove(frozen)
            self.refused.add(number)
            self.relay.thaw(frozen)

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    async def heard(self, message: Message) -> None:
        """Whatever the other process says while sessions are here. Raises ChannelBroken."""
        match message.kind, message.document:
            case (("has" | "cannot"), {"number": int(number)}):
                await self._answered(number, message)
            case "kick", {"number": int(number), "reason": str(reason)}:
                if (client := self.roster.clients.get(number)) is not None:
                    if any(each.pair.number == number for each in self._under_way):
                        self._kicked[number] = reason
                    client.end(reason)
            case "stop", {"reason": str(reason)}:
                self.on_stop(reason)

    async def _answered(self, number: int, message: Message) -> None:
        """Of the first that is under way."""
        if not self._under_way or number != self._under_way[0].pair.number:
            raise ChannelBroken(f"{message.kind!r} of session {number}, which was not given")
        frozen = self._under_way.popleft()
        self._given.discard(number)
        reason = self._kicked.pop(number, frozen.dropped)
        if message.kind == "has":
            self.moved += 1
            self.relay.let_go(frozen)
            self.news.forget(number)
            self.roster.moved(self.roster.clients[number], self.pid)
            if reason:  # while it was on its way
                await self.channel.send("kick", {"number": number, "reason": reason})
            return
        why = message.document.get("reason")
        log.warning("session %d stays: process %d cannot take it: %s", number, self.pid, why)
        self.refused.add(number)
        self.relay.thaw(frozen)

    async def last_words(self) -> None:
        """Of a process that has ended: what it has said that it has, nobody else can go on with."""
        with suppress(ChannelBroken), trio.move_on_after(_LAST_WORDS_S):
            while self._under_way and (message := await self.channel.receive()) is not None:
                message.close()
                frozen = self._under_way[0]
                if message.kind == "has" and message.document.get("number") == frozen.pair.number:
                    self._under_way.popleft()
                    frozen.pair.parts = False  # nobody knows what that one has told the daemon
                    frozen.drop(f"it had gone on in process {self.pid}, which has died")
                    self.relay.thaw(frozen)

    def leave(self) -> None:
        """Those that were given are the other one's: it lives."""
        while self._under_way:
            frozen = self._under_way.popleft()
            if frozen.pair.number not in self._given:
                self.relay.thaw(frozen)
                continue
            self.relay.let_go(frozen)
            self.roster.moved(self.roster.clients[frozen.pair.number], self.pid)

    def give_up(self) -> None:
        """They go on here, as if nothing had been."""
        while self._under_way:
            self.relay.thaw(self._under_way.popleft())
        self._kicked.clear()


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

    async def run(self) -> tuple[Outcome, "Retirement"]:
        """Raises UpgradeFailed, and then everything is as it was."""
        began = trio.current_time()
        started = await self._started()
        news = _News(started.channel, self._roster)
        moves = _Moves(started.channel, self._relay, self._roster, started.pid, news)
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

    async def _give(self, moves: _Moves) -> None:
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
                await trio.sleep(_BREATH_S)

    @asynccontextmanager
    async def _with_doors_closed(self, moves: _Moves, started: Started) -> AsyncIterator[None]:
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

    async def _move_all(self, moves: _Moves) -> None:
        """All that can be moved within a moment."""
        async with trio.open_nursery() as nursery:
            answered = trio.Event()

            async def hear() -> None:
                nonlocal answered
                while (message := await moves.channel.receive()) is not None:
                    with _closing(message):
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
                    await trio.sleep(_LOOK_EVERY_S)
                    waiting.extend(again)
                    again.clear()
                while moves.under_way > _UNDER_WAY - _AT_ONCE:
                    await _in_time(answered.wait, SILENT_S)
                some = [waiting.popleft() for _ in range(min(_AT_ONCE, len(waiting)))]
                again += await moves.move([each for each in some if _can_move(each, self._roster)])
                await trio.sleep(_BREATH_S)
            while moves.under_way:
                await _in_time(answered.wait, SILENT_S)
            nursery.cancel_scope.cancel()


class Retirement:
    """The life of a process that has handed over, with those who could not move."""

    def __init__(
        self, moves: _Moves, roster: Roster, started: Started, before: Sequence[Process]
    ) -> None:
        self._moves = moves
        self._roster = roster
        self._started = started
        self._before = before
        self.still_has = len(before)  # of those before it, who tell this process
        # It is the daemon by now. While it stands still, nobody could tell which sessions it has.
        moves.channel.patience_s = math.inf
        self.over = trio.Event()  # the other one is gone, and so are all that come behind it

    async def say(self, kind: str, document: dict[str, Any]) -> None:
        """To the other one, if it is there: "stop", which has it end too, or "signal"."""
        with suppress(ChannelBroken):
            await self._moves.channel.send(kind, document)

    @property
    def is_alone(self) -> bool:
        """Whether the other one has died, before it had told this one to end."""
        return self._started.ended()

    async def take_leave(self) -> None:
        """Nobody is left here: returns when the other process has been told so of each."""
        with suppress(ChannelBroken), trio.move_on_after(_LEAVE_S):
            await self._moves.news.tell()
            await self._moves.channel.send("left")  # behind what another task is saying

    async def run(self) -> None:
        """Until it is cancelled, or the other process is gone: then those here go on alone."""
        moves = self._moves
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear)
                for process in self._before:
                    nursery.start_soon(self._hand_on, process)
                while True:
                    await moves.news.tell()
                    await moves.news.tell_figures()
                    await self._move_late()
                    await trio.sleep(_LOOK_EVERY_S)
        except* ChannelBroken as broken:
            await _ended(self._started, _LAST_WORDS_S)  # which is seen later than its silence
            log.info("the process that has taken over: %s", broken.exceptions[0])
        except* Exception:
            log.exception("an error of proxyd's own: this process goes on alone")
        finally:
            moves.news.end()
            with trio.CancelScope(shield=True):
                await self._settle()
            self._started.close()
            self.over.set()

    async def _settle(self) -> None:
        """What is under way is here or there, before anything goes on."""
        moves = self._moves
        with suppress(ChannelBroken), trio.move_on_after(_LAST_WORDS_S):
            while moves.under_way and not self._started.ended():
                await self._hear_one()
        if self._started.ended():
            await moves.last_words()
            moves.give_up()
        else:
            moves.leave()

    async def _hear(self) -> None:
        while True:
            await self._hear_one()

    async def _hear_one(self) -> None:
        message = await self._moves.channel.receive()
        if message is not None:
            with _closing(message):
                await self._moves.heard(message)

    async def _hand_on(self, process: Process) -> None:
        """One that had handed over to this one tells the next one from now on."""
        try:
            await self._hand_over(process)
        finally:
            self.still_has -= 1

    async def _hand_over(self, process: Process) -> None:
        sock = await process.let_go()
        if sock is None:
            return
        clients = [
            written(ClientTold.of(each))
            for each in self._roster.clients.values()
            if each.process == process.pid
        ]
        try:
            document = {"pid": process.pid, "clients": clients}
            await self._moves.channel.send("retired", document, [sock.fileno()])
        finally:
            sock.close()
            process.is_elsewhere()

    async def _move_late(self) -> None:
        """Who has just been let in, or had a descriptor on its way."""
        moves = self._moves
        late = deque(self._roster.clients.values())
        while late and moves.under_way <= _UNDER_WAY - _AT_ONCE:
            # Else the other one is slow, or stopped: they had better go on here.
            some = [late.popleft() for _ in range(min(_AT_ONCE, len(late)))]
            await moves.move(
                [
                    each
                    for each in some
                    if each.number not in moves.refused and _can_move(each, self._roster)
                ]
            )


def _can_move(client: Client, roster: Roster) -> bool:
    """By what it is made of; whether it can at this moment, the relay says."""
    pair = client.relayed
    return pair is not None and pair.moves and client.number in roster.clients


class _closing:  # noqa: N801 (a context manager)
    """Descriptors that came with a message that has none are closed."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._message.close()


async def _call_off(started: Started, ends_s: float) -> None:
    """The other process ends: by itself if it does so in this time. Doing so twice is harmless."""
    with suppress(ChannelBroken), trio.move_on_after(_CALLED_OFF_S):
        await started.channel.send("never mind")
    await _ended(started, ends_s)
    started.kill()
    await _ended(started, _DIES_IN_S)


async def _ended(started: Started, seconds: float) -> None:
    """Waits for it, without a thread: there may be none to be had."""
    end = trio.current_time() + seconds
    while not started.ended() and trio.current_time() < end:  # noqa: ASYNC110 (nobody tells)
        await trio.sleep(_ENDED_EVERY_S)


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
