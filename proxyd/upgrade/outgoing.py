"""The side that gives the daemon away.

    start the program ── offer ── ready? ── close the doors ── who is here ── take ── taken?
        ── one session after the other ── finished ── retired, until nobody is left

Until `finished` this process can take back all that it has not given whole: the listening sockets
stay open here, a session's sockets until the other process has said that it has them. It says so
before it touches a byte of theirs, so there is no moment in which both serve a session, and none in
which nobody would. What cannot move stays here (Retirement).
"""

import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import trio

from proxyd.admin.document import written
from proxyd.relay.moving import Frozen
from proxyd.session.handover import Relay
from proxyd.session.roster import Client, Roster
from proxyd.upgrade.channel import Channel, ChannelBroken, Message
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
_UNDER_WAY: Final = 8  # sessions that stand still at one time
_LOOK_EVERY_S: Final = 0.05  # whether one can be moved that could not before
_PATIENCE_S: Final = 2.0  # with those in the first row: a courier needs milliseconds
_TELL_EVERY_S: Final = 1.0
_CALLED_OFF_S: Final = 0.5

log = logging.getLogger("daemon.upgrade")


class UpgradeFailed(Exception):
    """This process goes on to serve; the text says why."""


class Serving(Protocol):
    """The daemon, as far as it is handed over. All but `offer` is cheap and never fails."""

    def offer(self) -> tuple[dict[str, Any], list[int]]:
        """What the next process needs to start, with the descriptors of what listens."""

    def close_doors(self) -> None:
        """Accepts nobody; who comes waits in the backlog."""

    def open_doors(self) -> None: ...

    def handed_over(self) -> dict[str, Any]:
        """What holds at this moment, which the next one goes on with."""

    def take_back(self) -> None:
        """The next one had begun to serve, and is gone."""

    def name_successor(self, pid: int) -> None:
        """To systemd."""

    def retire(self, pid: int) -> None:
        """That one is the daemon from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an upgrade came to."""

    pid: int
    moved: int
    staying: int
    seconds: float


@dataclass(slots=True)
class _Moves:
    """Sessions that stand still, until the other process has said that it has them."""

    channel: Channel
    relay: Relay
    roster: Roster
    pid: int
    moved: int = 0
    refused: set[int] = field(default_factory=set)  # they stay: the other one could not read them
    _under_way: deque[Frozen] = field(default_factory=deque)

    async def move(self, client: Client) -> bool:
        """Whether it is on its way; else it cannot be moved now."""
        if (frozen := await self.relay.freeze(client.number)) is None:
            return False
        self._under_way.append(frozen)
        document = {"number": client.number, "state": frozen.state}
        try:
            await self.channel.send("session", document, frozen.descriptors)
        except Unreadable as error:  # it holds more than a message takes
            log.warning("session %d stays: %s", client.number, error)
            self._under_way.remove(frozen)
            self.refused.add(client.number)
            self.relay.thaw(frozen)
        return True

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    async def answered(self, message: Message) -> None:
        """Of the first that is under way. Raises ChannelBroken."""
        number = message.document.get("number")
        if not self._under_way or number != self._under_way[0].pair.number:
            raise ChannelBroken("an answer to what was not asked")
        frozen = self._under_way.popleft()
        if message.kind == "has":
            self.moved += 1
            self.relay.let_go(frozen)
            self.roster.moved(self.roster.clients[frozen.pair.number], self.pid)
            if frozen.dropped:  # while it was on its way
                await self.channel.send("kick", {"number": number, "reason": frozen.dropped})
            return
        log.warning(
            "session %d stays: process %d cannot take it: %s",
            number,
            self.pid,
            message.document.get("reason"),
        )
        self.refused.add(frozen.pair.number)
        self.relay.thaw(frozen)

    def give_up(self) -> None:
        """They go on here, as if nothing had been."""
        while self._under_way:
            self.relay.thaw(self._under_way.popleft())


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

    async def run(self) -> tuple[Outcome, "Retirement"]:
        """Raises UpgradeFailed, and then everything is as it was."""
        began = trio.current_time()
        try:
            started = await trio.to_thread.run_sync(self._relaunch.start)
        except OSError as error:
            raise UpgradeFailed(f"the program cannot be started: {error.strerror}") from error
        async with self._or_not_at_all(started):
            channel = started.channel
            await self._have_it_start(started)
            moves = _Moves(channel, self._relay, self._roster, started.pid)
            async with self._with_doors_closed(moves, started):
                await self._tell_who_is_here(channel)
                await _in_time(channel.send("take", self._serving.handed_over()), SILENT_S)
                await _answer(channel, "taken", TAKEN_S)
                await self._move_all(moves)
                await self._hand_on(channel)
                # In this order: whoever is the daemon says so to systemd.
                self._serving.name_successor(started.pid)
                await _in_time(channel.send("finished"), SILENT_S)
        self._serving.retire(started.pid)
        outcome = Outcome(
            pid=started.pid,
            moved=moves.moved,
            staying=len(self._roster.clients),
            seconds=trio.current_time() - began,
        )
        return outcome, Retirement(moves, self._roster, started)

    @asynccontextmanager
    async def _or_not_at_all(self, started: Started) -> AsyncIterator[None]:
        """Around all of it: whatever goes wrong ends the other process, and is one line."""
        try:
            yield
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await _call_off(started)
            why = started.why()
            started.close()
            match _alone(error):
                case ChannelBroken() as broken:
                    raise UpgradeFailed(f"{broken}: {why}") from error
                case Unreadable() | OSError() as other:
                    raise UpgradeFailed(str(other)) from error
            raise

    @asynccontextmanager
    async def _with_doors_closed(self, moves: _Moves, started: Started) -> AsyncIterator[None]:
        self._serving.close_doors()
        try:
            yield
        except BaseException:
            with trio.CancelScope(shield=True):
                # Dead before anything goes on here that it could have, too.
                await _call_off(started)
            moves.give_up()
            self._serving.take_back()
            self._serving.open_doors()
            raise

    async def _have_it_start(self, started: Started) -> None:
        offer, descriptors = self._serving.offer()
        await _in_time(
            started.channel.send("offer", {**offer, "format": FORMAT}, descriptors), TAKEN_S
        )
        await _answer(started.channel, "ready", READY_S)

    async def _tell_who_is_here(self, channel: Channel) -> None:
        clients = [client for client in self._roster.clients.values() if not client.process]
        for at in range(0, len(clients), PAGE):
            page = [written(ClientTold.of(each)) for each in clients[at : at + PAGE]]
            await _in_time(channel.send("clients", {"clients": page}), SILENT_S)

    async def _move_all(self, moves: _Moves) -> None:
        """All that can be moved within a moment."""
        async with trio.open_nursery() as nursery:
            answered = trio.Event()

            async def hear() -> None:
                nonlocal answered
                while (message := await moves.channel.receive()) is not None:
                    with _closing(message):
                        await moves.answered(message)
                    answered.set()
                    answered = trio.Event()

            nursery.start_soon(hear)
            waiting = deque(self._roster.clients.values())
            again: list[Client] = []
            end = trio.current_time() + _PATIENCE_S
            while waiting or again:
                if not waiting:
                    if trio.current_time() >= end:
                        break
                    await trio.sleep(_LOOK_EVERY_S)
                    waiting.extend(again)
                    again.clear()
                client = waiting.popleft()
                if not _can_move(client, self._roster):
                    continue
                while moves.under_way >= _UNDER_WAY:
                    await _in_time(answered.wait(), SILENT_S)
                if not await _in_time(moves.move(client), SILENT_S):
                    again.append(client)
            while moves.under_way:
                await _in_time(answered.wait(), SILENT_S)
            nursery.cancel_scope.cancel()

    async def _hand_on(self, channel: Channel) -> None:
        """Those that are retired tell the next one from now on."""
        for process in self._processes():
            sock = await process.let_go()
            if sock is None:
                continue
            clients = [
                written(ClientTold.of(each))
                for each in self._roster.clients.values()
                if each.process == process.pid
            ]
            with sock:
                document = {"pid": process.pid, "clients": clients}
                await _in_time(channel.send("retired", document, [sock.fileno()]), SILENT_S)


class Retirement:
    """The life of a process that has handed over, with those who could not move."""

    def __init__(self, moves: _Moves, roster: Roster, started: Started) -> None:
        self._moves = moves
        self._roster = roster
        self._started = started
        self._told: dict[int, object] = {}
        self._changed: dict[int, None] = {}
        self.on_stop: Callable[[str], None] = lambda _: None
        roster.on_change = self._note

    def _note(self, client: Client) -> None:
        self._changed[client.number] = None

    async def run(self) -> None:
        """Until it is cancelled, or the other process is gone: then those here go on alone."""
        channel = self._moves.channel
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear)
                while True:
                    await self._tell()
                    await self._move_late()
                    await trio.sleep(_LOOK_EVERY_S)
        except* ChannelBroken as broken:
            log.info("the process that has taken over: %s", broken.exceptions[0])
        finally:
            self._moves.give_up()
            channel.close()
            self._started.close()

    async def _hear(self) -> None:
        while (message := await self._moves.channel.receive()) is not None:
            with _closing(message):
                await self._obey(message)

    async def _obey(self, message: Message) -> None:
        """Raises ChannelBroken."""
        match message.kind, message.document:
            case (("has" | "cannot"), _):
                await self._moves.answered(message)
            case "kick", {"number": int(number), "reason": str(reason)}:
                client = self._roster.clients.get(number)
                if client is not None:
                    client.end(reason)
            case "stop", {"reason": str(reason)}:
                self.on_stop(reason)

    async def _tell(self) -> None:
        """Who is new here, open or gone at once; how much the others do now and then."""
        channel, changed = self._moves.channel, list(self._changed)
        self._changed.clear()
        for number in changed:
            client = self._roster.clients.get(number)
            if client is None:
                self._told.pop(number, None)
                await channel.send("gone", {"number": number})
            else:
                await channel.send("clients", {"clients": [written(ClientTold.of(client))]})
        now = time.monotonic()
        if now < self._next_figures:
            return
        self._next_figures = now + _TELL_EVERY_S
        news: list[Any] = []
        for client in list(self._roster.clients.values()):
            figures = figures_of(client)
            if figures is not None and self._told.get(client.number) != figures:
                self._told[client.number] = figures
                news.append([client.number, written(figures)])
        if news:
            await channel.send("figures", {"of": news})

    _next_figures = -math.inf

    async def _move_late(self) -> None:
        """Who has just been let in, or had a descriptor on its way."""
        for client in list(self._roster.clients.values()):
            if client.number not in self._moves.refused and _can_move(client, self._roster):
                await self._moves.move(client)


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


async def _call_off(started: Started) -> None:
    """The other process ends, by itself if it is quick. Saying so twice is harmless."""
    with suppress(ChannelBroken), trio.move_on_after(_CALLED_OFF_S):
        await started.channel.send("never mind")
    started.channel.close()
    await trio.to_thread.run_sync(started.kill)


def _alone(error: BaseException) -> BaseException:
    """Of a group with one error, that one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _in_time(what: Awaitable[Any], seconds: float) -> Any:
    """Raises ChannelBroken."""
    with trio.move_on_after(seconds):
        return await what
    raise ChannelBroken(f"the new process was silent for {seconds:g} s")


async def _answer(channel: Channel, kind: str, seconds: float) -> Message:
    message: Message | None = await _in_time(channel.receive(), seconds)
    if message is None or message.kind != kind:
        said = "nothing" if message is None else message.kind
        raise ChannelBroken(f"the new process was to say {kind!r} and said {said!r}")
    message.close()
    return message
