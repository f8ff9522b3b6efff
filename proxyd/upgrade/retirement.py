"""The life of a process that has handed over: it serves who could not move, and goes.

It accepts nobody. Whom it serves is told to the process that is the daemon by now (incoming.py),
and who can move after all moves late.
"""

import logging
import math
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import trio

from proxyd.admin.document import written
from proxyd.session.roster import Roster
from proxyd.upgrade.channel import ChannelBroken
from proxyd.upgrade.documents import ClientTold
from proxyd.upgrade.incoming import Process
from proxyd.upgrade.moves import AT_ONCE, LAST_WORDS_S, LOOK_EVERY_S, UNDER_WAY, Moves, can_move
from proxyd.upgrade.relaunch import Started, has_ended

_LEAVE_S: Final = 1.0

log = logging.getLogger("daemon.upgrade")


class Retirement:
    """The life of a process that has handed over, with those who could not move."""

    def __init__(
        self, moves: Moves, roster: Roster, started: Started, before: Sequence[Process]
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
                    await trio.sleep(LOOK_EVERY_S)
        except* ChannelBroken as broken:
            await has_ended(self._started, LAST_WORDS_S)  # which is seen later than its silence
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
        with suppress(ChannelBroken), trio.move_on_after(LAST_WORDS_S):
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
            with message:
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
        while late and moves.under_way <= UNDER_WAY - AT_ONCE:
            # Else the other one is slow, or stopped: they had better go on here.
            some = [late.popleft() for _ in range(min(AT_ONCE, len(late)))]
            await moves.move(
                [
                    each
                    for each in some
                    if each.number not in moves.refused and can_move(each, self._roster)
                ]
            )
