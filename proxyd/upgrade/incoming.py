"""The side that takes the daemon over, and what it knows of the processes that were it before.

    offer ── [configuration, sockets, relay, loop] ── ready ── clients ── take ── taken
          ── sessions ── finished ── what the other process tells, until it ends

Of each session whose state and sockets have come whole it says that it has them, and touches none
before. A process that ends without a word is dead: what it has given is served, be it the
listening sockets alone, unless somebody else is the daemon by then. The one before closes the
channel when it has ended this one, and never else while it lives.
"""

import functools
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final, Protocol

import trio

from proxyd.admission.admission import Admission
from proxyd.audit.writer import Audit
from proxyd.relay.pair import RelayedPair
from proxyd.session.away import AwayFlow, AwayLedger, AwaySession, AwayStopwatch
from proxyd.session.handover import Relay
from proxyd.session.roster import Client, Roster
from proxyd.session.rulings import Rulings
from proxyd.upgrade.channel import Channel, ChannelBroken, Gone, Message
from proxyd.upgrade.documents import (
    ClientTold,
    FiguresTold,
    client_told,
    figures_told,
    learn_groups,
)
from proxyd.upgrade.format import Unreadable

_SAID_S: Final = 2.0  # to say what is to be said before it is handed on
_BOTH_ENDS: Final = 2

log = logging.getLogger("daemon.upgrade")


class Home(Protocol):
    """The daemon that takes over."""

    def take(self, document: dict[str, Any]) -> None:
        """It is the one that accepts, from now on."""

    def give_back(self) -> None:
        """The one before goes on after all; this one ends."""

    def inherit(self) -> None:
        """Likewise, where the one before has died over it. Raises Disinherited."""


class Disinherited(Exception):
    """Somebody else is the daemon by now."""


class NotTaking(Exception):
    """This process is not to be the daemon: the one before goes on."""


class Processes:
    """Other processes of this daemon, which have handed over and are not gone yet."""

    def __init__(self, roster: Roster, relay: Relay, audit: Audit, rulings: Rulings) -> None:
        self.roster = roster
        self.relay = relay
        self.audit = audit
        self.rulings = rulings
        self.all: list[Process] = []
        self.on_finished: Callable[[], None] = lambda: None  # this process is the daemon alone
        self.on_stop: Callable[[str], None] = lambda _: None  # and so do all others
        self.on_signal: Callable[[int], None] = lambda _: None  # one that was sent to another one
        # Somebody was accepted there by the door of this name; the socket is whoever's is called.
        self.on_caller: Callable[[str, socket.socket], None] = lambda _, sock: sock.close()

    @property
    def admission(self) -> Admission:
        return self.roster.admission

    def stop(self, reason: str) -> None:
        """Has all of them end as this one does."""
        for each in self.all:
            each.say("stop", {"reason": reason})

    async def have_heard(self) -> None:
        """Returns when all that was said to them is with them, or they do not take it."""
        with trio.move_on_after(_SAID_S):
            for each in tuple(self.all):
                await each.has_heard()

    def reserve(self, last: int) -> None:
        """Numbers up to this one are another process's."""
        self.roster.last = max(self.roster.last, last)


class Process:
    """One of them, by its channel. `run` lives as long as it does."""

    def __init__(self, channel: Channel, processes: Processes, pid: int) -> None:
        self.pid = pid
        self._channel = channel
        self._all = processes
        self._to_say = deque[tuple[str, dict[str, Any]]]()
        self._something = trio.Event()
        self._all_said = trio.Event()
        self._left = trio.Event()
        self._goes = False
        self.finished = False  # it has given all that it gives at once
        processes.all.append(self)

    # The hand-over itself

    async def take_over(self, home: Home, nursery: trio.Nursery) -> None:
        """Returns when this process is the daemon. Raises NotTaking where it is not to be.

        What follows is heard by `run`.
        """
        try:
            await self._say("ready")
            while (message := await self._channel.receive()) is not None:
                try:
                    if message.kind == "never mind":
                        raise NotTaking("it was called off")
                    if message.kind == "take":
                        self._all.reserve(_number(message.document, "last"))
                        home.take(message.document)
                        break
                    self._heard(message, nursery)
                finally:
                    message.close()
        except Gone as gone:
            log.warning("the process before has died in the midst of its hand-over: %s", gone)
            try:
                home.inherit()
            except Disinherited as error:
                raise NotTaking(str(error)) from error
        except (ChannelBroken, Unreadable) as error:
            raise NotTaking(f"it cannot be spoken with: {error}") from error
        else:
            try:
                await self._say("taken")
            except ChannelBroken as error:
                home.give_back()
                raise NotTaking(str(error)) from error

    async def _say(self, kind: str, document: dict[str, Any] | None = None) -> None:
        """Who is gone is told nothing; what it has said before is heard all the same."""
        with suppress(Gone):
            await self._channel.send(kind, document)

    async def run(self, nursery: trio.Nursery) -> None:
        """Hears what it tells. Returns when it is over, or was handed on."""
        try:
            async with trio.open_nursery() as inner:
                inner.start_soon(self._say_all)
                while (message := await self._channel.receive()) is not None:
                    try:
                        await self._obey(message, nursery)
                    finally:
                        message.close()
                inner.cancel_scope.deadline = trio.current_time() + _SAID_S
        except* (ChannelBroken, Unreadable) as broken:
            log.debug("process %d: %s", self.pid, broken.exceptions[0])
            self._finish()
        finally:
            self._all.all.remove(self)
            if not self._goes:
                self._forget()
                self._channel.close()
            self._left.set()

    async def let_go(self) -> socket.socket | None:
        """The channel, for the process that comes next; None when it is over."""
        if self not in self._all.all:
            return None
        self._goes = True
        self._something.set()
        self._channel.stop_waiting()
        await self._left.wait()
        return self._channel.detached()

    def is_elsewhere(self) -> None:
        """Another process hears what it tells from now on."""
        for each in self._clients():
            self._all.roster.handed_on(each)

    def say(self, kind: str, document: dict[str, Any]) -> None:
        """Without waiting for it."""
        self._to_say.append((kind, document))
        if self._all_said.is_set():
            self._all_said = trio.Event()
        self._something.set()

    async def has_heard(self) -> None:
        """Returns when all that was said is with it."""
        if self._to_say:
            await self._all_said.wait()

    async def _say_all(self) -> None:
        while True:
            while self._to_say:
                await self._say(*self._to_say[0])
                self._to_say.popleft()
            self._all_said.set()
            if self._goes:
                return
            await self._something.wait()
            self._something = trio.Event()

    async def _obey(self, message: Message, nursery: trio.Nursery) -> None:
        match message.kind, message.document:
            case "session", _:
                await self._take_session(message)
            case "kick", {"number": int(number), "reason": str(reason)}:
                if (client := self._all.roster.clients.get(number)) is not None:
                    client.end(reason)
            case "stop", {"reason": str(reason)}:
                self._all.on_stop(reason)
            case "signal", {"number": int(number)}:
                self._all.on_signal(number)
            case _:
                self._heard(message, nursery)

    def _heard(self, message: Message, nursery: trio.Nursery) -> None:
        document = message.document
        match message.kind, document:
            case "clients", {"clients": list(clients)}:
                for each in clients:
                    self._is_there(client_told(each))
            case "gone", {"number": int(number)}:
                if (client := self._client(number)) is not None:
                    self._all.roster.gone_elsewhere(client)
            case "figures", {"of": list(news)}:
                self._figures(news)
            case "retired", {"pid": int(pid), "clients": list(clients)}:
                self._takes_on(message, pid, clients, nursery)
            case "caller", {"door": str(door)} if len(message.descriptors) == 1:
                sock = socket.socket(fileno=message.descriptors.pop())
                sock.setblocking(False)
                self._all.on_caller(door, sock)
            case "finished", _:
                self._finish()

    def _client(self, number: int) -> Client | None:
        """One that this process serves."""
        client = self._all.roster.clients.get(number)
        return client if client is not None and client.process == self.pid else None

    def _finish(self) -> None:
        """Said once."""
        if not self.finished:
            self.finished = True
            self._all.on_finished()

    def _is_there(self, told: ClientTold) -> None:
        """A client of its, new or with news."""
        roster = self._all.roster
        client = roster.clients.get(told.number)
        if client is not None:
            if client.process == self.pid:
                _update(client, told)
                if not told.anonymous:
                    roster.proved(client)
                roster.elsewhere(client)
            return
        client = told.client(self._all.admission)
        client.process = self.pid
        client.end = client.place.end = self._kick(told.number)
        _update(client, told)
        roster.elsewhere(client)
        self._all.reserve(told.number)

    def _kick(self, number: int) -> Any:
        def kick(reason: str) -> None:
            self.say("kick", {"number": number, "reason": reason})

        return kick

    def _figures(self, news: Sequence[Any]) -> None:
        for each in news:
            match each:
                case [int(number), figures]:
                    if (client := self._client(number)) is not None:
                        client.pair = _session(figures_told(figures))

    def _takes_on(
        self, message: Message, pid: int, clients: Sequence[Any], nursery: trio.Nursery
    ) -> None:
        """A process that had handed over to the one before."""
        try:
            (descriptor,) = message.descriptors
            channel = Channel.of(descriptor)
        except (ValueError, OSError):
            log.warning("process %d goes on unseen: its channel did not come over", pid)
            return
        message.descriptors.clear()
        process = Process(channel, self._all, pid)
        process.finished = True
        for each in clients:
            process._is_there(client_told(each))
        nursery.start_soon(process.run, nursery)

    async def _take_session(self, message: Message) -> None:
        number = _number(message.document, "number")
        try:
            client, pair = self._restored(number, message)
        except (ValueError, OSError) as error:
            await self._say("cannot", {"number": number, "reason": str(error)})
            return
        except Exception:  # around one session: the others have come, and go on here
            log.exception("session %d: an error of proxyd's own when it came", number)
            await self._say("cannot", {"number": number, "reason": "an error of proxyd's own"})
            return
        await self._say("has", {"number": number})  # if that one is gone, nobody else has it
        relay = self._all.relay
        relay.go_on_with(pair)
        self._all.roster.resumed(client, pair, functools.partial(relay.drop, number))

    def _restored(self, number: int, message: Message) -> tuple[Client, RelayedPair]:
        """Raises ValueError and OSError; then the sockets are closed with the message."""
        client = self._client(number)
        if client is None:
            raise Unreadable(f"no client {number} was told of")
        if len(message.descriptors) != _BOTH_ENDS or message.lost:
            raise Unreadable("its sockets did not come over: is LimitNOFILE large enough?")
        state = message.document.get("state")
        if not isinstance(state, dict):
            raise Unreadable("a session without its state")
        with ExitStack() as unless_it_goes_on:
            socks = []
            while message.descriptors:
                socks.append(socket.socket(fileno=message.descriptors[0]))
                message.descriptors.pop(0)
                unless_it_goes_on.callback(socks[-1].close)
            learn_groups(client, socks[0])
            rulings = self._all.rulings
            pair = self._all.relay.restored(
                state,
                *socks,
                guards=rulings.guards_of(client.ruling),
                pace=rulings.pace_of(client.ruling),
                trail=self._all.audit.trail(client.recorded),
            )
            if pair.number != client.number:
                raise Unreadable(f"the state of session {pair.number}")
            unless_it_goes_on.pop_all()
        return client, pair

    def _forget(self) -> None:
        """It is gone, and with it whoever was left there."""
        for each in self._clients():
            log.warning("%s: ended with process %d, which is gone", each, self.pid)
            self._all.roster.gone_elsewhere(each)

    def _clients(self) -> list[Client]:
        """Those that it serves."""
        return [each for each in self._all.roster.clients.values() if each.process == self.pid]


def _update(client: Client, told: ClientTold) -> None:
    client.identity, client.known = told.identity, told.known
    client.certificate, client.mechanism = told.certificate, told.mechanism
    client.readonly, client.uri, client.backend = told.readonly, told.uri, told.backend
    client.tls = told.tls
    client.names = told.san()
    client.gids = told.gids
    client.ruling = None if told.ruling is None else told.ruling.ruling()
    if told.figures is not None:
        client.pair = _session(told.figures)


def _session(figures: FiguresTold) -> AwaySession:
    return AwaySession(
        active_ns=figures.active_ns,
        unanswered=figures.unanswered,
        up=AwayFlow(calls=figures.calls, moved=figures.bytes_up, forbidden=figures.forbidden),
        down=AwayFlow(errors=figures.errors, moved=figures.bytes_down),
        ledger=AwayLedger((None,) * min(figures.streams, 4096)),
        stopwatch=AwayStopwatch(timed=figures.timed, sum_ns=figures.timed_ns),
    )


def _number(document: dict[str, Any], key: str) -> int:
    found = document.get(key)
    if type(found) is not int or found < 0:
        raise ChannelBroken(f"{key} is {found!r}")
    return found
