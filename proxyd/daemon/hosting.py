"""The live daemon as its admin socket shows it (admin/host.py)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from proxyd.admin.host import Client, Limits, Pool, PoolBounds, Refused, Server
from proxyd.admin.pool import check_unchanged, fixed_pool
from proxyd.admin.visitors import AdminServer
from proxyd.config.logstrings import LogFilter, LogOutput
from proxyd.daemon.exits import StartFailed
from proxyd.daemon.idle import IdleExit
from proxyd.daemon.in_force import InForce
from proxyd.daemon.log_settings import LogSettings
from proxyd.daemon.logoutputs import LogOutputError
from proxyd.daemon.reload import Reloader
from proxyd.daemon.reporting import Reporter, described
from proxyd.session.handover import Relay
from proxyd.session.roster import Roster
from proxyd.wire import failure
from proxyd.wire.failure import Domain

SERVER_NAME: Final = "virtproxyd"
_LIB_VERSION: Final = 11003000  # libvirt 11.3.0, in whose role we are


class ProxyServer:
    """The server `virtproxyd`: everybody who came in by a legacy address."""

    name = SERVER_NAME

    def __init__(self, in_force: InForce, roster: Roster, relay: Relay, reloader: Reloader) -> None:
        self._in_force = in_force
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
        room = self._in_force.descriptor_room
        if limits.max_clients > max(room, self.limits.max_clients):
            raise Refused(
                failure.invalid_argument(
                    f"nclients_max {limits.max_clients}: there are descriptors for {room} sessions;"
                    " start the daemon with a higher RLIMIT_NOFILE (LimitNOFILE in the unit)"
                )
            )
        self._roster.admission.change(
            max_clients=limits.max_clients, max_anonymous=limits.max_anonymous
        )

    async def update_tls(self) -> None:
        if self._in_force.tls is None:
            text = "no TLS listener is open: set listen_tls = 1 and start the daemon anew"
            raise Refused(failure.internal(text))
        try:
            await self._reloader.reload_tls()
        except StartFailed as error:
            raise Refused(failure.system_error(0, str(error), Domain.RPC)) from error


class LiveHost:
    """Everything that can be asked of the daemon, and the few things that can be changed."""

    lib_version = _LIB_VERSION

    def __init__(
        self,
        server: ProxyServer,
        admin: AdminServer,
        *,
        roster: Roster,
        logs: LogSettings,
        idle: IdleExit,
        reporter: Reporter,
        stop: Callable[[str], None],
    ) -> None:
        self._servers: tuple[Server, Server] = (server, admin)
        self._roster = roster
        self._logs = logs
        self._idle = idle
        self._reporter = reporter
        self._stop = stop

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

    async def status(self, *, ask_daemons: bool) -> Mapping[str, Any]:
        return await self._reporter.status(ask_daemons=ask_daemons)

    def described(self, *, after: int, most: int) -> Sequence[Mapping[str, Any]]:
        return described(self._roster, after=after, most=most)

    def close_client(self, number: int) -> None:
        client = self._roster.clients.get(number)
        if client is None:
            text = f"there is no client {number}; `proxyd clients` lists those that there are"
            raise Refused(failure.no_client(text, Domain.ADMIN))
        client.close()


def _cannot_log(error: LogOutputError) -> Refused:
    cause = error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    return Refused(failure.system_error(number or 0, str(error), Domain.NONE))
