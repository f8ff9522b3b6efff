"""What a daemon consists of, and how its parts are put together.

    current ── what is in force (in_force.py), behind all of them
    roster ─┬─ admission       who may come in, and how many
            └─ relay           who is open
    services                   what a session needs: the roster and
                               presence, polkit, starter, routes, proofs, refusals, leaving
    admin_services             what an administrator's visit needs: the admin server, and the
                               daemon as admin/view.py describes it
    reloader, mender, idle     they change and end what is above, and drain lets nobody new in

Nothing runs yet: control_plane.py starts them.
"""

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxyd.admin import document
from proxyd.admin.visit import VisitServices
from proxyd.admin.visitors import AdminServer
from proxyd.admission.admission import Admission
from proxyd.admission.capacity import Capacity
from proxyd.audit.record import Event, Who
from proxyd.audit.writer import Audit
from proxyd.autostart.starter import Starter
from proxyd.config.listeners import network_listenings
from proxyd.daemon.admin_view import LiveView, ProxyServer
from proxyd.daemon.audit_settings import AuditSettings
from proxyd.daemon.drain import Drain
from proxyd.daemon.entrances import Entrances, polkit_for, prover
from proxyd.daemon.idle import IdleExit
from proxyd.daemon.in_force import Current, Options
from proxyd.daemon.log_settings import LogSettings
from proxyd.daemon.mending import Mender
from proxyd.daemon.needs import Needs
from proxyd.daemon.observed import observed
from proxyd.daemon.reload import Reloader
from proxyd.daemon.status_document import Reporter
from proxyd.endpoint.couriers import COURIERS
from proxyd.log.episodes import Episodes
from proxyd.metrics.service import MetricsService
from proxyd.peer.names import NameService
from proxyd.process.descriptors import (
    couriers_allowed,
    descriptor_limit,
    encrypting_allowed,
    fitting,
    partings_allowed,
    pipes_allowed,
)
from proxyd.process.program import Program
from proxyd.relay.pair import RelayedPair
from proxyd.session.handover import Relay
from proxyd.session.leaving import Leaving
from proxyd.session.line import Caller
from proxyd.session.opener import Opener
from proxyd.session.opening import Services
from proxyd.session.presence import Presence
from proxyd.session.refusal import Refusals
from proxyd.session.revision import Revision
from proxyd.session.roster import Client, Roster
from proxyd.session.rulings import Rulings
from proxyd.session.tenures import Tenures
from proxyd.upgrade.incoming import Processes
from proxyd.upgrade.outgoing import Outcome

if TYPE_CHECKING:  # it brings D-Bus with it
    from proxyd.polkit.authority import PolkitAuthority


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """All that lives as long as the daemon does."""

    current: Current
    admission: Admission
    roster: Roster
    relay: Relay
    presence: Presence
    polkit: "PolkitAuthority | None"
    starter: Starter
    entrances: Entrances
    services: Services
    leaving: Leaving
    admin: AdminServer
    admin_services: VisitServices
    idle: IdleExit
    drain: Drain
    reloader: Reloader
    mender: Mender
    metrics: MetricsService
    tenures: Tenures
    processes: Processes


def assemble(  # noqa: PLR0913 (made in one place, by keywords)
    current: Current,
    options: Options,
    logs: LogSettings,
    *,
    announced: Callable[[], AbstractContextManager[None]],
    stop: Callable[[str], None],
    end: Callable[[], None],
    audit: AuditSettings | None = None,
    upgrade: Callable[[], Awaitable[Outcome]],
    why_not_now: Callable[[], str],
) -> Parts:
    """Makes all parts, within trio.

    `announced` surrounds a reload; `stop` begins to end the daemon, for a reason, and `end` ends it
    when nobody is there; `upgrade` hands over to another process. Without an `audit` nothing is
    recorded.
    """
    audit = audit or AuditSettings(Audit(), options)
    limit = descriptor_limit()
    by_network = bool(network_listenings(current.now.settings))
    COURIERS.most = couriers_allowed(limit)
    admission = _admission(current)
    roster = Roster(admission, audit.audit)
    relay = Relay(
        roster.relay_ended,
        pipes=pipes_allowed(limit),
        partings=partings_allowed(limit),
        parting_timeout_s=lambda: current.now.settings.proxyd_parting_timeout,
        encrypting=encrypting_allowed(limit, by_network=by_network),
    )
    names = NameService()
    leaving = Leaving(admission.capacity.leaving)
    rulings = Rulings(lambda: current.now.rules, names, roster.clients)
    services = _services(current, options, roster, relay, leaving, rulings)

    tenures = Tenures(roster)
    roster.on_session = tenures.watch

    def recorded(client: Client, pair: RelayedPair) -> None:
        relay.record(pair, audit.audit.trail(client.recorded))

    admin = AdminServer(max_clients=current.now.settings.admin_max_clients)
    admissions = (admission, admin.admission)
    idle = IdleExit(options.idle_exit_s, admissions, end)
    drain = Drain(roster)
    reloader = Reloader(current, options, logs, admissions, audit=audit, announced=announced)
    _record(audit.audit, roster, relay, services.refusals, reloader)
    needs = Needs(
        current=current,
        roster=roster,
        polkit=services.polkit,
        can_start=services.opener.starter.can_start,
        audit=audit.audit,
    )
    reloader.on_reload.append(needs.remember)
    reporter = Reporter(
        current=current,
        options=options,
        roster=roster,
        admin=admin,
        relay=relay,
        logs=logs,
        idle=idle,
        drain=drain,
        reloader=reloader,
        needs=needs,
        started_at=time.time(),
        program=Program.at_start(),
    )
    metrics = MetricsService(observed(reporter, roster, relay, services.refusals))
    view = LiveView(
        ProxyServer(current, roster, relay, reloader),
        admin,
        reporter=reporter,
        metrics=metrics,
        stop=stop,
        upgrade=upgrade,
        revision=Revision(roster, relay, rulings, tenures, recorded),
        why_not_now=why_not_now,
    )
    return Parts(
        current=current,
        admission=admission,
        roster=roster,
        relay=relay,
        presence=services.presence,
        polkit=services.polkit,
        starter=services.opener.starter,
        entrances=Entrances(current, names),
        services=services,
        leaving=leaving,
        admin=admin,
        admin_services=VisitServices(
            server=admin,
            view=view,
            names=names,
            timeout_s=services.timeout_s,
            part=leaving.part,
            audit=audit.audit,
        ),
        idle=idle,
        drain=drain,
        reloader=reloader,
        mender=Mender(current, options, reloader),
        metrics=metrics,
        tenures=tenures,
        processes=Processes(roster, relay, audit.audit, rulings),
    )


def _record(
    audit: Audit, roster: Roster, relay: Relay, refusals: Refusals, reloader: Reloader
) -> None:
    """What the audit is told of by those who know nothing of it."""

    def denied(caller: Caller, reason: str) -> None:
        where = caller.holder.name if caller.door.transport.traits.by_network else None
        values = {"listener": caller.door.name, "address": where, "uid": caller.holder.uid}
        audit.denied(Who(values), reason)

    def reloaded(outcome: document.Reload) -> None:
        values = {"outcome": "ok" if outcome.succeeded else "error", "reason": outcome.text}
        audit.put(Event.RELOAD, values=values)

    def record_anew() -> None:
        for client in roster.clients.values():
            if client.relayed is not None:
                relay.record(client.relayed, audit.trail(client.recorded))

    refusals.on_denied = denied
    reloader.on_outcome = reloaded
    reloader.on_reload.append(record_anew)


def _admission(current: Current) -> Admission:
    settings = current.now.settings
    admission = Admission(
        max_clients=fitting(settings.max_clients, current.now.descriptor_room),
        max_anonymous=settings.max_anonymous_clients,
        most_each=settings.proxyd_max_clients_per_peer,
        capacity_of=Capacity.of,
    )
    admission.rate.change(
        a_second=settings.proxyd_connection_rate, burst=settings.proxyd_connection_burst
    )
    admission.logins.change(settings.proxyd_login_failures)
    return admission


def _services(
    current: Current,
    options: Options,
    roster: Roster,
    relay: Relay,
    leaving: Leaving,
    rulings: Rulings,
) -> Services:
    episodes = Episodes()
    return Services(
        roster=roster,
        relay=relay,
        presence=Presence(),
        polkit=polkit_for(current.now),
        opener=Opener(
            routes=lambda: current.now.routes,
            starter=Starter(
                runtime_dir=options.places.runtime_dir, environ=os.environ, euid=os.geteuid()
            ),
            rulings=rulings,
        ),
        timeout_s=lambda: current.now.settings.proxyd_handshake_timeout,
        proof=prover(current),
        refusals=Refusals(roster.admission.capacity.turned_away, episodes, leaving.part),
        trouble_of=lambda door: trouble.reason if (trouble := current.trouble_of(door)) else "",
        episodes=episodes,
        part=leaving.part,
    )
