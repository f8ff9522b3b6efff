"""The control plane while it runs: listeners, sessions, the admin sockets, signals, the end.

    Daemon.run ─┬─ the relay's threads, which outlive all the rest
                └─ a nursery: a task per listener, a task per client until its hand-over, one each
                   for signals, idleness, a drain, polkit and the daemons that are started

Whoever wants the daemon to end calls `stop`: from then on nobody is let in, and sessions end as
soon as no call of theirs is under way. Then the daemons behind are told so in order
(relay/parting.py), the nursery is cancelled, and the relay ends last, since a session may be handed
to it until then.
"""

import functools
import logging
import math
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Final

import trio

from proxyd import __version__
from proxyd.admin.visit import serve_visitor
from proxyd.admission.admission import Admission
from proxyd.config.listeners import Door
from proxyd.daemon.assemble import assemble
from proxyd.daemon.audit_settings import AuditSettings
from proxyd.daemon.doors import Doors
from proxyd.daemon.drain import NOTE
from proxyd.daemon.expiry import tell_of_ends
from proxyd.daemon.in_force import Current, InForce, Options
from proxyd.daemon.lineage import Lineage
from proxyd.daemon.load_config import group_id
from proxyd.daemon.log_settings import LogSettings
from proxyd.daemon.reload import tell
from proxyd.daemon.restart import Restarting
from proxyd.daemon.succession import Succession
from proxyd.endpoint.couriers import COURIERS
from proxyd.listen.listener import Listener
from proxyd.process.background import Readiness
from proxyd.process.exit_status import Exit
from proxyd.process.garbage import collect_garbage
from proxyd.process.signals import received_signals
from proxyd.process.systemd_notify import Notifier, feed_watchdog, keep_status
from proxyd.relay.loop import STOPPED
from proxyd.session.accept_loop import accept_clients
from proxyd.session.entrance import Entrance
from proxyd.session.leaving import PATIENCE_S
from proxyd.session.reception import Reception
from proxyd.upgrade.kept import go_on
from proxyd.upgrade.outgoing import Outcome, UpgradeFailed
from proxyd.upgrade.retirement import Retirement
from proxyd.wire.programs import AuthMethod

_FOR_THE_DAEMON: Final = (signal.SIGHUP, signal.SIGUSR1)
_LOOK_EVERY_S: Final = 0.02  # whether calls have finished
_END_S: Final = 10.0  # that all the rest of the end takes, at the most
# Of that, for daemons to be told that their clients are gone.
_LEAST_PARTING_S: Final = 1.0
_MOST_PARTING_S: Final = 5.0

log = logging.getLogger("daemon.virtproxyd")


class Daemon:
    """Made and run within trio."""

    def __init__(
        self,
        in_force: InForce,
        options: Options,
        logs: LogSettings,
        audit: AuditSettings,
        notifier: Notifier,
        lineage: Lineage,
    ) -> None:
        self._notifier = notifier
        self._lineage = lineage
        self._doors = Doors()
        self._office = trio.CancelScope()  # around what the process does that is the daemon
        self._parts = assemble(
            Current(in_force),
            options,
            logs,
            announced=notifier.reloading,
            stop=self.stop,
            end=self._deserted,
            audit=audit,
            upgrade=self._upgrade,
            why_not_now=self._why_not_now,
        )
        self.succession = Succession(
            self._parts, self._doors, notifier, lineage, self._office.cancel, self._stop_as_well
        )
        self.succession.processes.on_signal = self._hear
        self._restarting = Restarting(self._parts, self._doors, notifier)
        self._told_to_stop = False
        self._status = Exit.OK
        self._stops = False
        self._draining = trio.CancelScope()
        self._hurried = False
        self._nursery: trio.Nursery
        self._reception: Reception
        self._entrances: dict[str, Entrance] = {}
        self._given_back = ExitStack()  # ports that were opened since the start
        self._news = trio.Event()
        self._parts.reloader.opened = self._serve_ports
        self._parts.reloader.on_change = self._reloaded
        self._parts.drain.on_change = self._tell_news

    async def run(self, readiness: Readiness) -> Exit:
        """Returns when it has been stopped. Raises RelayDied."""
        with self._given_back, received_signals() as signals:
            async with trio.open_nursery() as outer:
                outer.start_soon(self._parts.relay.run)
                # Sessions that are not handed over end before the relay does: nothing is ever
                # handed to a relay that has stopped.
                async with trio.open_nursery() as self._nursery:
                    self._start_tasks(signals)
                    go_on(
                        self._lineage.kept,
                        self._parts.relay,
                        self._parts.roster,
                        self._parts.roster.audit,
                        self._notifier,
                        self._parts.services.opener.rulings,
                    )
                    if await self.succession.take_over(self._nursery):
                        self._nursery.start_soon(self._keep_office)
                        readiness.ready()
                        self._notifier.ready()
                        _say_ready(self._parts.current)
                    else:
                        self._end()
                outer.cancel_scope.cancel()
        log.info("stopped")
        return self._status

    def stop(self, why: str) -> None:
        """Begins to end; said a second time, waits for no call any more."""
        if self._parts.admission.closed:
            log.info("%s again: not waiting for calls any more", why)
            self._hurried = True
            self._draining.cancel()
            return
        log.info("%s: stopping", why)
        self._stops = True
        self.succession.call_off()
        self.succession.processes.stop(why)
        if self._lineage.watched and self.succession.retirement is not None:
            self._nursery.start_soon(self.succession.retirement.say, "stop", {"reason": why})
        self._parts.admission.close()
        self._reception.doorstep.close()
        self._nursery.start_soon(self._drain)

    def _stop_as_well(self, why: str) -> None:
        """Another process of this daemon ends. Whoever has stopped it may have stopped this one,
        too, and not meant that nobody is to wait."""
        if not self._parts.admission.closed:
            self.stop(why)

    async def _stop_or_restart(self, why: str) -> None:
        """Begins to end, and leaves what sessions can go on where the service is started again."""
        settings = self._parts.current.now.settings
        if await self._restarting.is_one() and not self._parts.admission.closed:
            log.info("%s: stopping, to be started again", why)
            self.succession.call_off()
            self.succession.processes.stop(why)
            patience_s = settings.proxyd_drain_timeout
            if await self._restarting.leave_sessions(patience_s, _parting_s(patience_s)):
                await self._see_off(_parting_s(patience_s))
                self._end()
                return
        if not self._parts.admission.closed:
            self.stop(why)

    async def _drain(self) -> None:
        """Lets calls finish that are under way. Who has none is gone at once."""
        patience_s = self._parts.current.now.settings.proxyd_drain_timeout
        self._notifier.stopping()
        self._notifier.extend_timeout(patience_s + _END_S)
        await self._end_sessions(patience_s)
        await self.succession.is_over()
        await self._see_off(_parting_s(patience_s))
        await self.succession.processes.have_heard()
        if self._lineage.watched and self.succession.retirement is not None:
            with trio.move_on_after(patience_s + _MOST_PARTING_S):
                await self.succession.retirement.over.wait()
        self._end()

    async def _end_sessions(self, patience_s: float) -> None:
        roster = self._parts.roster
        for client in list(roster.clients.values()):
            if client.pair is None:
                client.end(STOPPED)
        # Made anew: a process that has retired may end its own sessions first, and then be stopped.
        with trio.CancelScope(relative_deadline=patience_s) as self._draining:
            while roster.clients:
                self._parts.relay.end_quiet()
                with trio.move_on_after(_LOOK_EVERY_S):
                    await self._parts.admission.wait_change()
        if roster.clients and not self._hurried:
            log.warning(
                "%d sessions were busy for %d s longer (proxyd_drain_timeout): cut off",
                len(roster.clients),
                patience_s,
            )

    async def _see_off(self, patience_s: float) -> None:
        """Both kinds of those who would take harm from a connection that is closed over them."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._part, patience_s)
            nursery.start_soon(self._see_off_clients)

    async def _part(self, patience_s: float) -> None:
        """Ends what sessions are left, and lets each daemon know in order."""
        relay, roster = self._parts.relay, self._parts.roster
        relay.part_all()
        with trio.move_on_after(patience_s):
            while relay.partings or any(client.pair for client in roster.clients.values()):
                with trio.move_on_after(_LOOK_EVERY_S):
                    await self._parts.admission.wait_change()
        if relay.partings:
            log.warning(
                "%d daemons' connections did not come to an orderly end within %g s: cut off",
                relay.partings,
                patience_s,
            )

    def _deserted(self) -> None:
        """Nobody has been here for long. Who comes now waits for the next daemon at the socket."""
        self._parts.admission.close()
        self._parts.admin.admission.close()
        self._reception.doorstep.close()
        self.succession.call_off()
        self.succession.processes.stop("nobody needs the daemon")
        self._nursery.start_soon(self._part_and_end)

    async def _part_and_end(self) -> None:
        self._notifier.stopping()
        await self.succession.is_over()
        await self._part(_MOST_PARTING_S)
        await self.succession.processes.have_heard()
        self._end()

    async def _see_off_clients(self) -> None:
        """Whoever is connected and still writes would die of that, and not tell why we end."""
        parts = self._parts
        parts.admin.admission.close()
        with trio.move_on_after(PATIENCE_S):
            await parts.admin.who_asked_to_stop_has_gone()
            await parts.admin.send_away()
            await parts.leaving.gone()

    def _end(self) -> None:
        self._notifier.stopping()
        self._parts.admission.close()
        self._parts.admin.admission.close()
        self._nursery.cancel_scope.cancel()

    def _start_tasks(self, signals: AsyncIterator[int]) -> None:
        parts, start = self._parts, self._nursery.start_soon
        self._reception = Reception(parts.services, self._nursery)
        self.succession.hand_on = self._reception.doorstep.hand_on
        self.succession.processes.on_caller = self._called_elsewhere
        start(self._reception.run)
        start(parts.presence.run)
        start(parts.leaving.run)
        start(parts.starter.run)
        start(parts.tenures.run)
        if parts.polkit is not None:
            start(parts.polkit.run)
        for each in parts.current.now.listeners:
            self._serve(each)
        for listener, door in parts.current.now.admin_listeners:
            self._accept(listener, door, parts.admin.admission, self._visitor_arrived)
        start(collect_garbage, parts.roster)
        start(self._obey, signals)

    async def _keep_office(self) -> None:
        """What one process of the daemon does, and no other one."""
        parts = self._parts
        with self._office:
            async with trio.open_nursery() as nursery:
                start = nursery.start_soon
                settings = parts.current.now.settings
                if settings.proxyd_metrics_listen:
                    group = functools.partial(group_id, settings.unix_sock_group)
                    listen, inherited = settings.proxyd_metrics_listen, self._lineage.inherited
                    start(parts.metrics.run, listen, group, inherited)
                else:
                    self._lineage.inherited.close()
                start(tell_of_ends, parts.current)
                start(parts.idle.run)
                start(parts.drain.run)
                start(parts.mender.run)
                start(feed_watchdog, self._notifier, parts.relay.answers)
                clients = parts.roster.clients.values
                start(keep_status, self._notifier, clients, self._wait_change, self._notes)

    def _serve(self, listener: Listener) -> None:
        entrance = self._parts.entrances.at(listener)
        self._entrances[entrance.door.name] = entrance
        arrived = functools.partial(self._reception.arrived, entrance)
        self._accept(entrance.listener, entrance.door, self._parts.admission, arrived)

    def _called_elsewhere(self, door: str, sock: socket.socket) -> None:
        """The process before had accepted somebody, and had no place for him."""
        entrance = self._entrances.get(door)
        if entrance is None:  # there is no such door any more
            COURIERS.close(sock)
        else:
            self._reception.arrived(entrance, sock)

    def _accept(
        self,
        listener: socket.socket,
        door: Door,
        admission: Admission,
        arrived: Callable[[socket.socket], None],
    ) -> None:
        accept = functools.partial(accept_clients, listener, door, admission, arrived)
        self._nursery.start_soon(self._doors.keep, accept)

    def _serve_ports(self, ports: Sequence[Listener], given_back: ExitStack) -> None:
        """They could not be opened at the start, and have been now."""
        self._given_back.callback(given_back.close)
        for each in ports:
            self._serve(each)
            log.warning("%s is served from now on", each.door.name)

    def _why_not_now(self) -> str:
        return self.succession.why_not_now()

    async def _upgrade(self) -> Outcome:
        """Raises UpgradeFailed. This process lives on for those who cannot move."""
        outcome = await self.succession.upgrade()
        self._nursery.start_soon(self._be_retired)
        return outcome

    async def _upgrade_or_not(self) -> None:
        """How that goes is logged, and nobody waits for it."""
        with suppress(UpgradeFailed):
            await self._upgrade()

    async def _be_retired(self) -> None:
        """Serves those who are left, to their end or to `proxyd_retire_timeout`."""
        succession, settings = self.succession, self._parts.current.now.settings
        seconds = settings.proxyd_retire_timeout
        assert succession.retirement is not None
        self._nursery.start_soon(self._while_there_is_a_daemon, succession.retirement)
        with trio.move_on_after(seconds or math.inf) as in_time:
            await succession.nobody_is_left()
        if self._stops:
            return  # it has been told to, and does
        if in_time.cancelled_caught:
            log.info("retired for %d s (proxyd_retire_timeout): ending who is left", seconds)
            await self._end_sessions(settings.proxyd_drain_timeout)
            await self._part(_parting_s(settings.proxyd_drain_timeout))
        await succession.retirement.take_leave()
        await self._see_off_clients()
        if self._lineage.watched:
            await self._stand_for_the_daemon(succession.retirement)
        self._end()

    async def _stand_for_the_daemon(self, retirement: Retirement) -> None:
        """Whoever has started this process would take its end for the daemon's."""
        log.info("process %d is the daemon; this one ends with it", self.succession.successor)
        await retirement.over.wait()
        if not self._stops:
            log.error("the daemon has ended without a word")
            self._status = Exit.FAILED

    async def _while_there_is_a_daemon(self, retirement: Retirement) -> None:
        await retirement.run()
        if retirement.is_alone and not self._parts.admission.closed:
            await self._restarting.ask_for_one()

    def _reloaded(self) -> None:
        self._parts.mender.look()
        self._tell_news()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _notes(self) -> list[str]:
        """What `systemctl status` shows besides the sessions."""
        last = self._parts.reloader.last
        notes = [NOTE] if self._parts.admission.draining else []
        notes += [f"{each.way} is not served" for each in self._parts.current.now.troubles]
        if last is not None and not last.succeeded:
            notes.append(f"the last reload failed, nothing was changed: {last.text}")
        return notes

    async def _wait_change(self) -> None:
        """Until a client has come or gone, or there is something to be told, since the call."""
        # Tasks start later, when either may be over already.
        changed, news = self._parts.admission.changed, self._news
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_then_cancel, changed.wait, nursery)
            nursery.start_soon(_then_cancel, news.wait, nursery)

    def _visitor_arrived(self, sock: socket.socket) -> None:
        visitor = self._parts.admin.arrived(sock)
        self._nursery.start_soon(serve_visitor, visitor, self._parts.admin_services)

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            name = signal.Signals(number).name
            if number in _FOR_THE_DAEMON:
                self._pass_on(signal.Signals(number))
            elif self._parts.admission.closed:
                log.info("%s again: ending at once", name)
                self._end()
            elif number == signal.SIGTERM and not self._told_to_stop:
                self._told_to_stop = True
                self._nursery.start_soon(self._stop_or_restart, name)
            else:
                self.stop(name)

    def _pass_on(self, number: signal.Signals) -> None:
        """To the process that is the daemon, where this one is not any more."""
        retirement = self.succession.retirement
        if retirement is None:
            self._hear(number)
        elif self._lineage.watched:
            self._nursery.start_soon(retirement.say, "signal", {"number": int(number)})
        else:
            log.info("%s is for process %d", number.name, self.succession.successor)

    def _hear(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._nursery.start_soon(self._parts.reloader.reload)
        elif number == signal.SIGUSR1:
            self._nursery.start_soon(self._upgrade_or_not)


async def _then_cancel(wait: Callable[[], Awaitable[None]], nursery: trio.Nursery) -> None:
    await wait()
    nursery.cancel_scope.cancel()


def _parting_s(patience_s: float) -> float:
    """For daemons to be told that their clients are gone: as long as calls had before."""
    return min(_MOST_PARTING_S, max(_LEAST_PARTING_S, patience_s))


def _say_ready(current: Current) -> None:
    open_ones = [each for each in current.now.listeners if current.trouble_of(each.door) is None]
    served = ", ".join(
        door.name if door.transport.traits.by_network else os.fsdecode(listener.getsockname())
        for listener, door in open_ones
    )
    log.info("proxyd %s serves %s", __version__, served)
    for each in current.now.troubles:
        tell(each, logging.ERROR)
    for _, door in open_ones:
        traits = door.transport.traits
        if not traits.is_private and door.method is AuthMethod.NONE:
            log.warning(
                "%s lets in EVERYBODY who can reach it, and encrypts nothing: whoever connects"
                ' owns this host. Set %s = "sasl", or %s = 0',
                door.name,
                *traits.auth,
                traits.listen,
            )
