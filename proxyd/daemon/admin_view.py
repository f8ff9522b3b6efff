"""The live daemon as its admin socket shows it (admin/view.py)."""

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from proxyd.admin import document
from proxyd.admin.pool import check_unchanged, fixed_pool
from proxyd.admin.view import CallRefused, Client, Limits, Pool, PoolBounds, Server
from proxyd.admin.visitors import AdminServer
from proxyd.config.logstrings import LogFilter, LogOutput
from proxyd.daemon.in_force import Current
from proxyd.daemon.reload import Reloader
from proxyd.daemon.status_document import Reporter, described
from proxyd.log.outputs import LogOutputError
from proxyd.metrics.service import MetricsService
from proxyd.process.exit_status import StartFailed
from proxyd.session.handover import Relay
from proxyd.session.revision import DECIDES_S, Revised, Revision
from proxyd.session.roster import Roster
from proxyd.upgrade.outgoing import Outcome, UpgradeFailed
from proxyd.wire import failure
from proxyd.wire.failure import Domain

SERVER_NAME: Final = "virtproxyd"
_MOST_REVISED: Final = 500  # that are told one by one: a reply of some 300 KiB
_LIB_VERSION: Final = 11003000  # libvirt 11.3.0, in whose role we are


class ProxyServer:
    """The server `virtproxyd`: everybody who came in by a legacy address."""

    name = SERVER_NAME

    def __init__(self, current: Current, roster: Roster, relay: Relay, reloader: Reloader) -> None:
        self._current = current
        self._relay = relay
        self._roster = roster
        self._reloader = reloader

    def clients(self) -> Sequence[Client]:
        return list(self._roster.clients.values())

    def find(self, number: int) -> Client | None:
        return self._roster.clients.get(number)

    @property
    def pool(self) -> Pool:
        loops = self._relay.loops
        return fixed_pool(len(loops), free=sum(not loop.sessions for loop in loops))

    def set_pool(self, bounds: PoolBounds) -> None:
        check_unchanged(self.pool, bounds)

    @property
    def limits(self) -> Limits:
        admission = self._roster.admission
        return Limits(max_clients=admission.max_clients, max_anonymous=admission.max_anonymous)

    @property
    def anonymous(self) -> int:
        return self._roster.admission.anonymous

    def set_limits(self, limits: Limits) -> None:
        room = self._current.now.descriptor_room
        if limits.max_clients > max(room, self.limits.max_clients):
            raise CallRefused(
                failure.invalid_argument(
                    f"nclients_max {limits.max_clients}: there are descriptors for {room} sessions;"
                    " start the daemon with a higher RLIMIT_NOFILE (LimitNOFILE in the unit)"
                )
            )
        self._roster.admission.change(
            max_clients=limits.max_clients, max_anonymous=limits.max_anonymous
        )

    async def update_tls(self) -> None:
        if self._current.now.tls is None:
            text = (
                "no TLS listener is open: set listen_tls = 1, or enable virtproxyd-tls.socket where"
                " systemd makes the sockets, and start the daemon anew"
            )
            raise CallRefused(failure.internal(text))
        try:
            await self._reloader.reload_tls()
        except StartFailed as error:
            raise CallRefused(failure.system_error(0, str(error), Domain.RPC)) from error


class LiveView:
    """Everything that can be asked of the daemon, and the few things that can be changed."""

    lib_version = _LIB_VERSION

    def __init__(
        self,
        server: ProxyServer,
        admin: AdminServer,
        *,
        reporter: Reporter,
        metrics: MetricsService,
        stop: Callable[[str], None],
        upgrade: Callable[[], Awaitable[Outcome]],
        revision: Revision,
        why_not_now: Callable[[], str],
    ) -> None:
        self._servers: tuple[Server, Server] = (server, admin)
        self._reporter = reporter
        self._roster = reporter.roster
        self._logs = reporter.logs
        self._idle = reporter.idle
        self._reloader = reporter.reloader
        self._metrics = metrics
        self._stop = stop
        self._upgrade = upgrade
        self._revision = revision
        self._why_not_now = why_not_now  # sessions are on their way between two processes

    def servers(self) -> Sequence[Server]:
        return self._servers

    @property
    def log_outputs(self) -> Sequence[LogOutput]:
        return self._logs.outputs

    @property
    def log_filters(self) -> Sequence[LogFilter]:
        return self._logs.filters

    async def set_log_outputs(self, outputs: Sequence[LogOutput]) -> None:
        try:
            await self._logs.set_outputs(outputs)
        except LogOutputError as error:
            raise _cannot_log(error) from error

    async def set_log_filters(self, filters: Sequence[LogFilter]) -> None:
        try:
            await self._logs.set_filters(filters)
        except LogOutputError as error:
            raise _cannot_log(error) from error

    def set_idle_exit(self, seconds: int) -> None:
        self._idle.change(seconds)

    def shut_down(self, *, preserve: bool) -> None:
        self._stop("asked to by an administrator")

    async def status(self, *, ask_daemons: bool, ask_busy: bool = False) -> document.Status:
        return await self._reporter.status(ask_daemons=ask_daemons, ask_busy=ask_busy)

    def described(self, *, after: int, most: int) -> Sequence[document.Client]:
        return described(self._roster, after=after, most=most)

    async def reload(self) -> str:
        done = await self._reloader.reloaded()
        if not done.succeeded:
            text = f"nothing was changed: {done.text}"
            raise CallRefused(failure.system_error(0, text, Domain.NONE))
        broken = self._reporter.current.now.troubles
        still = [f"clients by {each.way} are still not served: {each.reason}" for each in broken]
        return "\n".join([done.text, *still])

    def drain(self, *, on: bool) -> document.Drained:
        if self._roster.admission.closed:
            text = "it has been told to stop, and lets nobody in until it is started anew"
            raise CallRefused(failure.system_error(0, text, Domain.NONE))
        drain = self._reporter.drain
        changed = drain.begin() if on else drain.undo()
        return document.Drained(changed=changed, drain=drain.told)

    async def apply_rules(self, *, now: bool) -> document.Applied:
        if now and (why := self._why_not_now()):
            raise CallRefused(failure.system_error(0, f"nothing was changed: {why}", Domain.NONE))
        said = await self.reload()
        table = self._reporter.current.now.rules
        try:
            found = await self._revision.revise(act=now)
        except trio.TooSlowError as error:
            text = (
                f"not to all open sessions: the name service has not answered within {DECIDES_S:g}"
                " s; do it again when it does"
            )
            raise CallRefused(failure.system_error(0, text, Domain.NONE)) from error
        if now and (why := self._why_not_now()):
            text = f"not to all open sessions: {why}; do it again then"
            raise CallRefused(failure.system_error(0, text, Domain.NONE))
        return document.Applied(
            reloaded=said,
            rules=None if table is None else len(table.rules),
            open=sum(client.pair is not None for client in self._roster.clients.values()),
            count=len(found),
            done=now,
            sessions=tuple(map(_revised, found[:_MOST_REVISED])),
        )

    async def upgrade(self) -> document.Upgraded:
        try:
            done = await self._upgrade()
        except UpgradeFailed as error:
            text = f"not upgraded, process {os.getpid()} goes on to serve: {error}"
            raise CallRefused(failure.system_error(0, text, Domain.NONE)) from error
        return document.Upgraded(
            before=os.getpid(),
            pid=done.pid,
            moved=done.moved,
            staying=done.staying,
            seconds=done.seconds,
        )

    async def metrics(self) -> str:
        return (await self._metrics.metrics()).body.decode()

    def close_client(self, number: int) -> None:
        client = self._roster.clients.get(number)
        if client is None:
            text = f"there is no client {number}; `proxyd clients` lists those that there are"
            raise CallRefused(failure.no_client(text, Domain.ADMIN))
        client.close()


def _revised(found: Revised) -> document.RevisedSession:
    client = found.client
    return document.RevisedSession(
        id=client.number,
        who=str(client),
        uri=client.uri,
        change=found.change.value,
        before=found.before,
        now=found.now,
    )


def _cannot_log(error: LogOutputError) -> CallRefused:
    cause = error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    return CallRefused(failure.system_error(number or 0, str(error), Domain.NONE))
