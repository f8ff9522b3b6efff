"""Reads the live daemon for `proxyd status` and `proxyd clients` (admin/document.py)."""

import datetime as dt
import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import trio

from proxyd import __version__
from proxyd.admin import document
from proxyd.admin.visitors import AdminServer
from proxyd.config.addresses import daemon_at, host_port
from proxyd.config.listeners import authentication, by_certificate
from proxyd.config.routes import Destination
from proxyd.daemon.drain import Drain
from proxyd.daemon.idle import IdleExit
from proxyd.daemon.in_force import Current, Options
from proxyd.daemon.log_settings import LogSettings
from proxyd.daemon.needs import Needs
from proxyd.daemon.reload import Reloader
from proxyd.process.program import Program
from proxyd.relay.parting import AtDaemon
from proxyd.session.handover import Relay
from proxyd.session.probe import Answered, probe
from proxyd.session.roster import Client, Roster

_HOLDERS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Reads the live daemon; changes nothing."""

    current: Current
    options: Options
    roster: Roster
    admin: AdminServer
    relay: Relay
    logs: LogSettings
    idle: IdleExit
    drain: Drain
    reloader: Reloader
    needs: Needs
    started_at: float
    program: Program

    async def status(self, *, ask_daemons: bool, ask_busy: bool = False) -> document.Status:
        """Waits for daemons, two seconds at most, if they are to be asked; all of them, or those
        that have sessions and so are running."""
        faults: list[document.Fault] = []
        program: list[document.Program] = []

        async def compare() -> None:
            program.append(await trio.to_thread.run_sync(_compared, self.program))

        async def look() -> None:
            faults.extend(await self.needs.faults(wake=ask_daemons))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            nursery.start_soon(compare)
            backends = await self._backends(ask_daemons=ask_daemons, ask_busy=ask_busy)
        logs = self.logs.logs
        return document.Status(
            format=document.FORMAT,
            version=__version__,
            pid=os.getpid(),
            state=self._state(),
            drain=self.drain.told,
            program=program[0],
            started_at=self.started_at,
            uptime_s=time.time() - self.started_at,
            configuration=self.options.source.path,
            idle_exit_s=self.idle.seconds,
            listeners=tuple(self._listeners()),
            limits=self._limits(),
            backends=tuple(backends),
            certificates=tuple(self._certificates()),
            last_reload=self.reloader.last,
            rules=self._rules(),
            troubles=tuple(
                document.Trouble(way=each.way, since=each.since, text=each.reason)
                for each in self.current.now.troubles
            ),
            faults=tuple(faults),
            relay=self._relay(),
            log=document.LogLosses(dropped=logs.dropped, lost=logs.lost),
            processes=self._processes(),
        )

    def _state(self) -> str:
        admission = self.roster.admission
        return "draining" if admission.closed or admission.draining else "serving"

    def _processes(self) -> tuple[document.Process, ...]:
        """Those that have handed over and are still needed."""
        found = Counter(each.process for each in self.roster.clients.values() if each.process)
        return tuple(document.Process(pid=pid, clients=count) for pid, count in found.items())

    def _limits(self) -> document.Limits:
        admission, admin = self.roster.admission, self.admin.admission
        return document.Limits(
            clients=admission.clients,
            max_clients=admission.max_clients,
            unauthenticated=admission.anonymous,
            max_unauthenticated=admission.max_anonymous,
            admin_clients=admin.clients,
            max_admin_clients=admin.max_clients,
            descriptor_room=self.current.now.descriptor_room,
            waiting=admission.standing,
            silent=admission.callers - admission.standing,
            most_places=tuple(
                document.Holder(holder=name, clients=places)
                for name, places in admission.holdings.largest(_HOLDERS_SHOWN)
            ),
            over_rate=tuple(admission.rate.over.names()),
            over_logins=tuple(admission.logins.over.names()),
        )

    def _listeners(self) -> Iterator[document.Listener]:
        clients = Counter(client.door.name for client in self.roster.clients.values())
        settings = self.current.now.settings
        certificate = by_certificate(
            enforce=not settings.tls_no_verify_certificate, allowed=settings.tls_allowed_dn_list
        )
        for listener, door in self.current.now.listeners:
            address = _address(listener.getsockname())
            yield document.Listener(
                name=door.name,
                address=address,
                transport=door.transport.name.lower(),
                authentication=authentication(door, certificate),
                readonly=door.readonly,
                clients=clients[door.name],
                broken=self.needs.broken(address) if address.startswith("/") else None,
            )
        for listener, door in self.current.now.admin_listeners:
            address = _address(listener.getsockname())
            yield document.Listener(
                name=door.name,
                address=address,
                transport="admin",
                authentication="uid",
                readonly=False,
                clients=None,
                broken=self.needs.broken(address) if address.startswith("/") else None,
            )

    def _rules(self) -> document.Rules | None:
        now = self.current.now
        path = now.settings.proxyd_rules_file
        if now.rules is None or path is None:
            return None
        return document.Rules(file=path, count=len(now.rules.rules))

    async def _backends(self, *, ask_daemons: bool, ask_busy: bool) -> list[document.Backend]:
        sessions = Counter(
            client.backend for client in self.roster.clients.values() if client.pair is not None
        )
        partings = _partings(self.relay)
        busy = sessions + Counter({path: each.now for path, each in partings.items()})
        routes = self.current.now.routes
        found = self._of_interest(routes.known(), set(routes.routes.values()), busy)
        asked = [each for each in found if ask_daemons or (ask_busy and sessions[each.path])]
        answers: dict[str, Answered] = {}

        async def ask(destination: Destination) -> None:
            answers[destination.path] = await probe(destination)

        async with trio.open_nursery() as nursery:
            for destination in asked:
                nursery.start_soon(ask, destination)
        return [
            _backend(
                each,
                sessions[each.path],
                partings.get(each.path, AtDaemon()),
                answers.get(each.path),
                missing=self.needs.is_missing(each),
            )
            for each in found
        ]

    def _of_interest(
        self, known: Sequence[Destination], named: set[str], sessions: Counter[str]
    ) -> list[Destination]:
        """Daemons that a route names, that have a socket or had one, or that sessions are at; never
        none."""
        found = [
            each
            for each in known
            if {each.daemon, each.path} & named
            or sessions[each.path]
            or self.needs.was_present(each)
        ]
        shown = {each.path for each in found}
        # Read-only sockets, the system's daemons behind a user's proxyd, drivers that nobody knows.
        found += [_destination(path) for path in sorted(sessions) if path not in shown]
        return found or list(known[:1])

    def _certificates(self) -> Iterator[document.Certificate]:
        tls = self.current.now.tls
        if tls is None:
            return
        from proxyd.pki.content import key_kind, public_key  # noqa: PLC0415 (loaded with TLS)

        shown = tls.credentials
        listed = [("server", pair.certificate, pair.certificate_file) for pair in shown.pairs]
        listed += [("ca", authority, shown.files.ca) for authority in shown.authorities]
        for role, certificate, file in listed:
            yield document.Certificate(
                role=role,
                file=file,
                key=key_kind(public_key(certificate)),
                subject=certificate.subject.rfc4514_string(),
                **_expiry(certificate.not_valid_after_utc),
            )
        for each in shown.revocations:
            yield document.Certificate(
                role="crl",
                file=shown.files.crl,
                subject=each.issuer.rfc4514_string(),
                **_expiry(each.next_update_utc),
            )

    def _relay(self) -> document.Relay:
        loops = self.relay.loops
        found = [each for loop in loops for each in loop.by_daemon.values()]
        return document.Relay(
            threads=len(loops),
            sessions=sum(client.pair is not None for client in self.roster.clients.values()),
            calls=self.roster.calls,
            bytes_up=sum(sum(each.up.bytes) for each in found),
            bytes_down=sum(sum(each.down.bytes) for each in found),
            errors=sum(sum(each.down.errors) for each in found),
            tls_in_kernel=sum(map(_in_kernel, self.roster.clients.values())),
            own_errors=sum(loop.bugs for loop in loops),
        )


def _compared(program: Program) -> document.Program:
    """Reads files."""
    found = program.difference()
    return document.Program(
        outdated=found.told(), installed=found.installed, remedy=program.remedy()
    )


def described(roster: Roster, *, after: int, most: int) -> list[document.Client]:
    """So many clients with numbers above `after`, in the order in which they came."""
    now, now_ns = time.time(), time.monotonic_ns()
    above = (client for client in roster.clients.values() if client.number > after)
    return [_client(client, now, now_ns) for client in itertools.islice(above, most)]


def _client(client: Client, now: float, now_ns: int) -> document.Client:
    pair = client.pair
    seconds = (now_ns - client.started_ns) / 1e9
    return document.Client(
        id=client.number,
        listener=client.door.name,
        transport=client.transport.name.lower(),
        address=client.address,
        who=str(client.identity) if client.known else "not known yet",
        identity=client.identity,
        tls=client.tls,
        authenticated=not client.anonymous,
        authentication=client.authentication,
        readonly=client.readonly,
        state="negotiating" if pair is None else "open",
        uri=client.uri,
        backend=client.backend,
        connected_at=now - seconds,
        age_s=seconds,
        idle_s=0.0 if pair is None else (now_ns - pair.active_ns) / 1e9,
        calls=0 if pair is None else pair.up.calls,
        errors=0 if pair is None else pair.down.errors,
        bytes_up=0 if pair is None else pair.up.moved,
        bytes_down=0 if pair is None else pair.down.moved,
        timed_calls=0 if pair is None else pair.stopwatch.timed,
        timed_s=0.0 if pair is None else pair.stopwatch.sum_ns / 1e9,
        process=client.process or None,
        rule=_law(client),
        denied_calls=0 if pair is None else pair.up.forbidden,
    )


def _law(client: Client) -> document.Law | None:
    ruling = client.ruling
    if ruling is None:
        return None
    return document.Law(line=ruling.line, text=ruling.text, may=ruling.grant.name)


def _in_kernel(client: Client) -> bool:
    """Whether the kernel encrypts its bytes."""
    pair = client.relayed
    return pair is not None and bool(getattr(pair.client.endpoint, "in_kernel", False))


def _destination(path: str) -> Destination:
    daemon = daemon_at(path)
    return Destination(name="", daemon=daemon, path=path, unit=None)


def _partings(relay: Relay) -> dict[str, AtDaemon]:
    """Of all relay threads, by the daemon's socket."""
    found: dict[str, AtDaemon] = {}
    for loop in relay.loops:
        for path, each in loop.partings.of.copy().items():
            there = found.setdefault(path, AtDaemon())
            there.now += each.now
            there.ended.update(each.ended.copy())
    return found


def _backend(
    destination: Destination,
    sessions: int,
    partings: AtDaemon,
    answered: Answered | None,
    *,
    missing: bool,
) -> document.Backend:
    answer = None
    if answered is not None:
        answer = document.Answer(
            answers=answered.ms is not None, answered_ms=answered.ms, trouble=answered.trouble
        )
    return document.Backend(
        daemon=destination.daemon,
        socket=destination.path,
        present=os.path.exists(destination.path),
        missing=missing,
        sessions=sessions,
        partings=document.Partings(
            now=partings.now,
            **{outcome.value: number for outcome, number in partings.ended.items()},
        ),
        answer=answer,
    )


class _Expiry(TypedDict):
    expires_at: float | None
    days_left: float | None


def _expiry(ends: dt.datetime | None) -> _Expiry:
    if ends is None:
        return {"expires_at": None, "days_left": None}
    left = ends - dt.datetime.now(dt.UTC)
    return {"expires_at": ends.timestamp(), "days_left": left.total_seconds() / 86400}


def _address(name: Any) -> str:
    if isinstance(name, bytes):
        return "@" + os.fsdecode(name[1:].rstrip(b"\0"))
    if isinstance(name, str):
        return name
    return host_port(name)
