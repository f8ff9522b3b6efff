"""The daemon as it changes hands: what it gives to the next process, and takes from the one before.

Both sides of upgrade/ ask this for what is the daemon's own: its listening sockets, its doors, the
pid file, and who systemd takes for the service.
"""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import trio

from proxyd.audit.record import Event
from proxyd.daemon.assemble import Parts
from proxyd.daemon.doors import Doors
from proxyd.daemon.lineage import Lineage
from proxyd.listen.listener import Listener
from proxyd.process.exit_status import StartFailed
from proxyd.process.systemd_notify import Notifier
from proxyd.session.line import Caller
from proxyd.upgrade.incoming import Disinherited, NotTaking, Process, Processes
from proxyd.upgrade.outgoing import HandOver, Outcome, UpgradeFailed
from proxyd.upgrade.retirement import Retirement

_LOOK_EVERY_S: Final = 0.5
_IS_OVER_S: Final = 8.0  # longer than it takes to end the other process

log = logging.getLogger("daemon.upgrade")


class Succession:
    """`end_office` ends what the process does that is the daemon, and no other one; `stop` ends all
    of it, when another process does."""

    def __init__(
        self,
        parts: Parts,
        doors: Doors,
        notifier: Notifier,
        lineage: Lineage,
        end_office: Callable[[], None],
        stop: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._doors = doors
        self._notifier = notifier
        self._lineage = lineage
        self._end_office = end_office
        self._one_at_a_time = trio.Lock()
        self._attempt = trio.CancelScope()
        self.processes: Processes = parts.processes
        self.processes.on_finished = self._is_the_daemon
        self.processes.on_stop = self.stop_as_well = stop
        self._hand_over: HandOver | None = None  # that is under way
        self.hand_on: Callable[[], Iterator[Caller]] = lambda: iter(())  # who is at the doorstep
        self.retirement: Retirement | None = None
        self.successor = 0  # the process that has taken over

    # From the process before

    async def take_over(self, nursery: trio.Nursery) -> bool:
        """Returns when this process accepts; False where it is not to be. Harmless for a daemon
        that has started by itself."""
        predecessor = self._lineage.predecessor
        if predecessor is None:
            self._doors.open()
            return True
        process = Process(predecessor.channel(), self.processes, predecessor.pid)
        try:
            await process.take_over(self, nursery)
        except NotTaking as error:
            log.warning("not taking over: %s", error)
            return False
        nursery.start_soon(process.run, nursery)
        return True

    def take(self, document: dict[str, Any]) -> None:
        """This process accepts from now on (Home in upgrade/incoming.py)."""
        self._lineage.pid_file.succeed()
        self._have_all()
        since = document.get("draining")
        if isinstance(since, int | float):
            self._parts.drain.go_on(float(since))
        self._doors.open()

    def give_back(self) -> None:
        self._doors.close()
        for file in self._parts.current.now.files:
            file.disown()

    def inherit(self) -> None:
        """Likewise, from one that is dead: its pid file may be somebody else's by now."""
        try:
            self._lineage.pid_file.take()
        except StartFailed as error:
            raise Disinherited(str(error)) from error
        self._have_all()
        self._doors.open()

    def _have_all(self) -> None:
        for file in self._parts.current.now.files:
            file.own()
        if self._lineage.predecessor is not None:
            self._lineage.predecessor.speak()

    def _is_the_daemon(self) -> None:
        """systemd listens to this process now."""
        self._lineage.pid_file.keep()
        self._notifier.speak()
        self._notifier.main_pid(os.getpid())  # if the one before had no time to say so
        self._notifier.ready()
        self._notifier.watchdog()
        log.info("this process has taken over")

    # To the next one

    async def upgrade(self) -> Outcome:
        """Raises UpgradeFailed, and then this process goes on to serve."""
        if refusal := self.why_not_now():
            log.warning("not upgraded: %s", refusal)
            raise UpgradeFailed(refusal)
        reloader = self._parts.reloader
        async with self._one_at_a_time:
            begun = reloader.begun
            self._hand_over = HandOver(
                self,
                self._lineage.relaunch,
                self._parts.relay,
                self._parts.roster,
                lambda: tuple(self.processes.all),
            )
            try:
                outcome, self.retirement = await self._attempted(self._hand_over)
            except UpgradeFailed as error:
                log.error("not upgraded, this process goes on to serve: %s", error)
                self._record("error", {"reason": str(error)})
                raise
            finally:
                self._hand_over = None
            if self._is_ending():  # since then
                await self.retirement.say("stop", {"reason": "it was to end when it handed over"})
            elif reloader.begun != begun:  # and the other one may have read its files before
                await self.retirement.say("signal", {"number": int(signal.SIGHUP)})
        log.info(
            "process %d has taken over after %.3f s, with %d sessions; %d stay here",
            outcome.pid,
            outcome.seconds,
            outcome.moved,
            outcome.staying,
        )
        self._record("ok", {"successor": outcome.pid})
        return outcome

    def why_not_now(self) -> str:
        """Why sessions cannot move from here, or be told anything; "" where they can."""
        if self._one_at_a_time.locked():
            return "an upgrade is under way already"
        if self.successor:
            return f"process {self.successor} has taken over: ask that one"
        if self._is_ending():
            return "the daemon is about to end"
        if not all(each.finished for each in self.processes.all):
            return "the process before is still handing over: try again in a moment"
        return ""

    def _is_ending(self) -> bool:
        return self._parts.admission.closed

    async def _attempted(self, hand_over: HandOver) -> tuple[Outcome, Retirement]:
        with trio.CancelScope() as self._attempt:
            return await hand_over.run()
        raise UpgradeFailed("the daemon is about to end")

    def call_off(self) -> None:
        """The daemon ends. An upgrade that is under way does not happen, unless the other process
        has sessions by now: then it comes to its end at once, and the other one ends them."""
        if self._hand_over is None or not self._hand_over.hurry():
            self._attempt.cancel()

    async def is_over(self) -> None:
        """Returns when no upgrade is under way, or takes too long."""
        with trio.move_on_after(_IS_OVER_S):
            async with self._one_at_a_time:
                pass

    def _record(self, outcome: str, more: dict[str, Any]) -> None:
        self._parts.roster.audit.put(Event.UPGRADE, values={"outcome": outcome, **more})

    def offer(self) -> tuple[dict[str, Any], list[int]]:
        """Serving in upgrade/outgoing.py."""
        in_force = self._parts.current.now
        told: list[dict[str, Any]] = []
        descriptors: list[int] = []

        def offer(descriptor: int, transport: str, service: str = "", file: Any = None) -> None:
            descriptors.append(descriptor)
            told.append(
                {"transport": transport, "service": service}
                | ({} if file is None else {"file": list(file)})
            )

        for service in in_force.services:
            offer(service.listener.fileno(), "", service.service)
        for file in in_force.files:
            offer(file.socket.fileno(), "UNIX", file=file.file)
        if not in_force.services:
            for sock, door in in_force.listeners:
                if door.transport.traits.by_network:
                    offer(sock.fileno(), door.transport.name)
        metrics = self._parts.metrics
        if metrics.listening is not None and metrics.file is not None:
            offer(metrics.listening.fileno(), "UNIX", file=metrics.file.file)
        elif metrics.listening is not None:
            offer(metrics.listening.fileno(), "METRICS")
        return {"pid": os.getpid(), "listening": told}, descriptors

    def close_doors(self) -> None:
        self._doors.close()
        self._parts.admission.hold(on=True)

    def open_doors(self) -> None:
        self._parts.admission.hold(on=False)
        self._doors.open()

    def callers(self) -> Iterator[tuple[str, socket.socket]]:
        for caller in self.hand_on():
            yield caller.door.name, caller.sock

    def handed_over(self) -> dict[str, Any]:
        # Who has been accepted, and has no place yet, gets a number here.
        drain = self._parts.drain.told
        return {
            "last": self._parts.roster.last + self._parts.admission.callers,
            "draining": None if drain is None else drain.since,
        }

    def take_back(self) -> None:
        self._lineage.pid_file.keep()
        self._notifier.main_pid(os.getpid())

    def name_successor(self, pid: int) -> None:
        self._notifier.main_pid(pid)

    def retire(self, pid: int) -> None:
        self.successor = pid
        self._notifier.be_silent()
        current = self._parts.current
        in_force = current.now
        files = [*in_force.files]
        if self._parts.metrics.file is not None:
            files.append(self._parts.metrics.file)
        for file in files:
            file.disown()
        listeners: tuple[Listener, ...] = (*in_force.listeners, *in_force.admin_listeners)
        for listener in listeners:
            listener.sock.close()
        current.now = replace(in_force, listeners=(), admin_listeners=(), services=(), files=())
        self._end_office()

    async def nobody_is_left(self) -> None:
        """Of those who stayed. Returns when the last one has gone, and each daemon was told so."""
        admission, relay, retirement = self._parts.admission, self._parts.relay, self.retirement
        assert retirement is not None
        while (
            self._parts.roster.clients
            or admission.callers
            or relay.partings
            or (retirement.still_has and not retirement.over.is_set())
        ):
            with trio.move_on_after(_LOOK_EVERY_S):
                await admission.wait_change()
