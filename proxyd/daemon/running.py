"""The control plane while it runs: listeners, sessions, the admin sockets, signals, the end.

    Daemon.run ─┬─ the relay's thread, which outlives all the rest
                └─ a nursery: a task per listener, a task per client until its hand-over, one each
                   for signals, idleness, polkit and the daemons that are started

Whoever wants the daemon to end calls `stop`: from then on nobody is let in, and sessions end as
soon as no call of theirs is under way. Then the nursery is cancelled, and the relay ends last,
since a session may be handed to it until then.
"""

import functools
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from typing import Final

import trio

from proxyd import __version__
from proxyd.admin.serving import AdminServices, serve_visitor
from proxyd.admin.visitors import AdminServer
from proxyd.config.listening import Transport
from proxyd.daemon.background import Readiness
from proxyd.daemon.descriptors import (
    couriers_allowed,
    descriptor_limit,
    fitting,
    pipes_allowed,
)
from proxyd.daemon.entrances import greeter, polkit_for, prover
from proxyd.daemon.garbage import collect_garbage
from proxyd.daemon.hosting import LiveHost, ProxyServer
from proxyd.daemon.idle import IdleExit
from proxyd.daemon.in_force import InForce, Options
from proxyd.daemon.log_settings import LogSettings
from proxyd.daemon.notify import Notifier, feed_watchdog, keep_status
from proxyd.daemon.reload import Reloader
from proxyd.daemon.reporting import Reporter
from proxyd.daemon.signals import received_signals
from proxyd.endpoint.couriers import COURIERS
from proxyd.relay.loop import STOPPED
from proxyd.session.accepting import accept_clients
from proxyd.session.admission import Admission
from proxyd.session.capacity import Capacity
from proxyd.session.client import Services
from proxyd.session.episodes import Episodes
from proxyd.session.handover import Relay
from proxyd.session.names import NameService
from proxyd.session.presence import Presence
from proxyd.session.reception import Reception
from proxyd.session.refusal import Refusals
from proxyd.session.roster import Roster
from proxyd.session.starting import Starter
from proxyd.wire.programs import AuthMethod

_LOOK_EVERY_S: Final = 0.02  # whether calls have finished
_END_S: Final = 10.0  # that all the rest of the end takes, at the most

log = logging.getLogger("daemon.virtproxyd")


class Daemon:
    """Made and run within trio."""

    def __init__(
        self, in_force: InForce, options: Options, logs: LogSettings, notifier: Notifier
    ) -> None:
        settings = in_force.settings
        self._in_force = in_force
        self._notifier = notifier
        self._admission = Admission(
            max_clients=fitting(settings.max_clients, in_force.descriptor_room),
            max_anonymous=settings.max_anonymous_clients,
            most_each=settings.proxyd_max_clients_per_peer,
            capacity_of=Capacity.of,
        )
        self._roster = Roster(self._admission)
        limit = descriptor_limit()
        self._relay = Relay(self._roster.relay_ended, pipes=pipes_allowed(limit))
        COURIERS.most = couriers_allowed(limit)
        self._presence = Presence()
        self._polkit = polkit_for(in_force)
        self._starter = Starter(
            runtime_dir=options.places.runtime_dir, environ=os.environ, euid=os.geteuid()
        )
        self._names = NameService()
        self._greet = greeter(in_force, self._names)
        episodes = Episodes()
        self._services = Services(
            roster=self._roster,
            presence=self._presence,
            polkit=self._polkit,
            starter=self._starter,
            relay=self._relay,
            routes=lambda: in_force.routes,
            timeout_s=lambda: in_force.settings.proxyd_handshake_timeout,
            proof=prover(in_force),
            refusals=Refusals(self._admission.capacity.turned_away, episodes),
            episodes=episodes,
        )
        self._admin = AdminServer(max_clients=settings.admin_max_clients)
        admissions = (self._admission, self._admin.admission)
        self._idle = IdleExit(options.idle_exit_s, admissions, self._end)
        self._reloader = Reloader(in_force, options, logs, admissions, announced=notifier.reloading)
        reporter = Reporter(
            in_force=in_force,
            options=options,
            roster=self._roster,
            admin=self._admin,
            relay=self._relay,
            logs=logs,
            idle=self._idle,
            reloader=self._reloader,
            started_at=time.time(),
        )
        self._admin_services = AdminServices(
            server=self._admin,
            host=LiveHost(
                ProxyServer(in_force, self._roster, self._relay, self._reloader),
                self._admin,
                roster=self._roster,
                logs=logs,
                idle=self._idle,
                reporter=reporter,
                stop=self.stop,
            ),
            names=self._names,
            timeout_s=lambda: in_force.settings.proxyd_handshake_timeout,
        )
        self._nursery: trio.Nursery
        self._reception: Reception

    async def run(self, readiness: Readiness) -> None:
        """Returns when it has been stopped. Raises RelayDied."""
        with received_signals() as signals:
            async with trio.open_nursery() as outer:
                outer.start_soon(self._relay.run)
                # Sessions that are not handed over end before the relay does: nothing is ever
                # handed to a relay that has stopped.
                async with trio.open_nursery() as self._nursery:
                    self._start_tasks(signals)
                    readiness.ready()
                    self._notifier.ready()
                    _say_ready(self._in_force)
                outer.cancel_scope.cancel()
        log.info("stopped")

    def stop(self, why: str) -> None:
        """Begins to end; said a second time, ends at once."""
        if self._admission.closed:
            log.info("%s again: ending at once", why)
            self._end()
            return
        log.info("%s: stopping", why)
        self._admission.close()
        self._reception.doorstep.close()
        self._nursery.start_soon(self._drain)

    async def _drain(self) -> None:
        """Lets calls finish that are under way. Who has none is gone at once."""
        patience_s = self._in_force.settings.proxyd_drain_timeout
        self._notifier.stopping()
        self._notifier.extend_timeout(patience_s + _END_S)
        for client in list(self._roster.clients.values()):
            if client.pair is None:
                client.end(STOPPED)
        with trio.move_on_after(patience_s):
            while self._roster.clients:
                self._relay.end_quiet()
                with trio.move_on_after(_LOOK_EVERY_S):
                    await self._admission.wait_change()
        if self._roster.clients:
            log.warning(
                "%d sessions were busy for %d s longer (proxyd_drain_timeout): cut off",
                len(self._roster.clients),
                patience_s,
            )
        self._end()

    def _end(self) -> None:
        self._notifier.stopping()
        self._admission.close()
        self._admin.admission.close()
        self._nursery.cancel_scope.cancel()

    def _start_tasks(self, signals: AsyncIterator[int]) -> None:
        start = self._nursery.start_soon
        self._reception = Reception(self._services, self._greet, self._nursery)
        start(self._reception.run)
        start(self._presence.run)
        start(self._starter.run)
        if self._polkit is not None:
            start(self._polkit.run)
        for listener, door in self._in_force.doors:
            arrived = functools.partial(self._reception.arrived, door)
            start(accept_clients, listener, door, self._admission, arrived)
        for listener, door in self._in_force.admin_doors:
            start(accept_clients, listener, door, self._admin.admission, self._visitor_arrived)
        start(self._idle.run)
        start(collect_garbage, self._roster)
        start(feed_watchdog, self._notifier, self._relay.answers)
        start(keep_status, self._notifier, self._roster.clients.values, self._admission.wait_change)
        start(self._obey, signals)

    def _visitor_arrived(self, sock: socket.socket) -> None:
        self._nursery.start_soon(serve_visitor, self._admin.arrived(sock), self._admin_services)

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self._nursery.start_soon(self._reloader.reload)
            else:
                self.stop(signal.Signals(number).name)


def _say_ready(in_force: InForce) -> None:
    served = ", ".join(
        os.fsdecode(listener.getsockname()) if door.transport is Transport.UNIX else door.name
        for listener, door in in_force.doors
    )
    log.info("proxyd %s serves %s", __version__, served)
    for _, door in in_force.doors:
        if door.transport is Transport.TCP and door.method is AuthMethod.NONE:
            log.warning(
                "%s lets in EVERYBODY who can reach it, and encrypts nothing: whoever connects"
                ' owns this host. Set auth_tcp = "sasl", or listen_tcp = 0',
                door.name,
            )
