"""Sessions on their way to another process, and what that one has to know of the others here."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from proxyd.admin.document import written
from proxyd.relay.moving import Frozen
from proxyd.session.handover import Relay
from proxyd.session.roster import Client, Roster, nobody_listens
from proxyd.upgrade.channel import Channel, ChannelBroken, Message
from proxyd.upgrade.documents import PAGE, ClientTold, figures_of
from proxyd.upgrade.format import Unreadable

AT_ONCE: Final = 8  # sessions that are frozen in one go
UNDER_WAY: Final = 2 * AT_ONCE  # that stand still at one time
# Between two goes: whoever has the interpreter without a pause keeps it from the relay threads.
BREATH_S: Final = 0.001
LOOK_EVERY_S: Final = 0.05  # whether one can be moved that could not before
LAST_WORDS_S: Final = 1.0
_TELL_EVERY_S: Final = 1.0

log = logging.getLogger("daemon.upgrade")


class News:
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
            await trio.sleep(BREATH_S)

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
class Moves:
    """Sessions that stand still, until the other process has said that it has them."""

    channel: Channel
    relay: Relay
    roster: Roster
    pid: int
    news: News
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
        with suppress(ChannelBroken), trio.move_on_after(LAST_WORDS_S):
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


def can_move(client: Client, roster: Roster) -> bool:
    """By what it is made of; whether it can at this moment, the relay says."""
    pair = client.relayed
    return pair is not None and pair.moves and client.number in roster.clients
