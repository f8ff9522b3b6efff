"""The end of a process whose service is started again at once: sessions that can go on do so.

    SIGTERM ── a restart? ── doors closed ── those who were about to come in do ── who cannot go on
        ends as ever ── all others are left with systemd (upgrade/kept.py)

They are served until the last moment, so that they wait for a start and no longer. Where anything
of it is not to be had, it is an end like any other.
"""

import logging
import os
from typing import Final

import trio

from proxyd.daemon.assemble import Parts
from proxyd.daemon.doors import Doors
from proxyd.process.systemd_manager import Restart, restart_under_way, start_again
from proxyd.process.systemd_notify import Notifier
from proxyd.relay.loop import STOPPED
from proxyd.session.roster import Client
from proxyd.upgrade.kept import can_be_left, leave

_LOOK_EVERY_S: Final = 0.02
_COMING_IN_S: Final = 2.0  # for those who have been accepted: to prove who they are, and to open
_REST_S: Final = 20.0  # that all of it takes besides

log = logging.getLogger("daemon.upgrade")


class Restarting:
    """The sessions of `parts`, when the process behind `doors` is told to stop."""

    def __init__(self, parts: Parts, doors: Doors, notifier: Notifier) -> None:
        self._parts = parts
        self._doors = doors
        self._notifier = notifier

    async def is_one(self) -> Restart | None:
        """Whether systemd starts the service again when this process has ended."""
        if not self._notifier.is_heard:
            return None
        return await trio.to_thread.run_sync(
            restart_under_way, self._notifier.address, os.getpid(), abandon_on_cancel=True
        )

    async def ask_for_one(self) -> None:
        """The process that had taken over has died, and systemd does not see it: it was a child of
        this one. Those who are still here have their calls finished, as at a stop."""
        if not self._notifier.address:
            return
        if await trio.to_thread.run_sync(
            start_again, self._notifier.address, os.getpid(), abandon_on_cancel=True
        ):
            log.error("the process that had taken over has died: systemd starts the service again")

    async def leave_sessions(self, patience_s: float, parting_s: float) -> bool:
        """Whether those that can go on are left with systemd. Whoever is here then has to end."""
        self._notifier.extend_timeout(patience_s + parting_s + _REST_S)
        self._notifier.stopping()
        self._doors.close()
        await self._let_come_in()
        await self._end_others(patience_s)
        await self._part_from_others(parting_s)
        restart = await self.is_one()  # which may have been overtaken by a stop
        if restart is None:
            return False
        parts = self._parts
        left = await leave(
            parts.relay, parts.roster, self._notifier, closes_apart=restart.closes_apart
        )
        if left is None:
            log.warning(
                "systemd keeps no sessions over this restart, so they end: let"
                " FileDescriptorStoreMax= of the unit be 16 (proxyd install)"
            )
        return left is not None

    async def _let_come_in(self) -> None:
        with trio.move_on_after(_COMING_IN_S):
            while any(client.pair is None for client in self._clients()):
                await self._a_moment()
        for client in self._clients():
            if client.pair is None:
                client.end(STOPPED)

    async def _end_others(self, patience_s: float) -> None:
        """As at any end: those who cannot go on have their calls finished."""
        with trio.move_on_after(patience_s):
            while not all(can_be_left(client) for client in self._clients()):
                self._parts.relay.end_quiet(all_of_them=False)
                await self._a_moment()
        for client in self._clients():
            if not can_be_left(client):
                client.end(STOPPED)

    async def _part_from_others(self, parting_s: float) -> None:
        with trio.move_on_after(parting_s):
            while self._parts.relay.partings:
                await self._a_moment()

    async def _a_moment(self) -> None:
        with trio.move_on_after(_LOOK_EVERY_S):
            await self._parts.admission.wait_change()

    def _clients(self) -> list[Client]:
        return [each for each in self._parts.roster.clients.values() if not each.process]
