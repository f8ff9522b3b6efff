"""Reads the configuration again: all of it takes effect, or nothing does.

What is wrong is found while `_Reloaded` is made; from then on nothing fails. Of the settings all
count but those that take effect at the start: they are built into the sockets and their doors.

A way in that was broken before (ways.py) may go on to be: that is no reason to leave the rest as it
was. For one whose port could not be opened, what the file now says of that port counts at once.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from proxyd.admin import document
from proxyd.admission.admission import Admission
from proxyd.config.restart import FIXED_AT_START, waiting_for_restart
from proxyd.config.settings import Settings
from proxyd.config.sources import Loaded
from proxyd.config.transports import BY_NETWORK, Transport
from proxyd.daemon.audit_settings import AuditSettings
from proxyd.daemon.entrances import attempted, load_offerings, load_tls_for, open_ports
from proxyd.daemon.in_force import Current, InForce, Options
from proxyd.daemon.load_config import load_checked
from proxyd.daemon.load_rules import load_rules
from proxyd.daemon.log_settings import LogSettings
from proxyd.daemon.places import routing_table
from proxyd.daemon.ways import Part, Trouble, still_known
from proxyd.listen.listener import Listener
from proxyd.process.descriptors import fitting
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.rules.table import RuleTable

if TYPE_CHECKING:
    from proxyd.sasl.mechanisms import Offering
    from proxyd.tls.server_context import ServerTls

log = logging.getLogger("daemon.virtproxyd")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reloaded:
    """What a reload puts in force, made in a thread: files are read, and the name service asked."""

    loaded: Loaded
    settings: Settings
    rules: RuleTable | None
    tls: "ServerTls | None"
    offerings: "dict[Transport, Offering]"
    troubles: Sequence[Trouble]
    ports: Sequence[Listener]
    given_back: ExitStack  # closes the ports


@dataclass(slots=True)
class _Waiting:
    """A whole reload that has not begun; what came of it, once it is over."""

    outcome: document.Reload | None = None
    over: trio.Event = field(default_factory=trio.Event)


class Reloader:
    """One reload at a time; `last` is how the latest one went.

    `announced` is entered when a reload is asked for and left when it is over. `opened` is told of
    ports that are served from now on; `on_change` is called when `last` or the troubles change,
    all of `on_reload` when a new configuration is in force, `on_outcome` with how each one went.
    """

    def __init__(
        self,
        current: Current,
        options: Options,
        logs: LogSettings,
        admissions: tuple[Admission, Admission],
        *,
        audit: AuditSettings,
        announced: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.last: document.Reload | None = None
        self.begun = 0  # how many
        self.opened: Callable[[Sequence[Listener], ExitStack], None] = _nobody_serves
        self.on_change: Callable[[], None] = lambda: None
        self.on_reload: list[Callable[[], None]] = []
        self.on_outcome: Callable[[document.Reload], None] = lambda _: None
        self._current = current
        self._options = options
        self._logs = logs
        self._audit = audit
        self._clients, self._visitors = admissions
        self._announced = announced
        self._one_at_a_time = trio.Lock()
        self._waiting: _Waiting | None = None  # for whatever goes on before it

    async def reload(self) -> None:
        """Never raises: what cannot be obeyed is logged, and everything stays as it was."""
        with self._announced():
            if self._waiting is None:  # else that one has not read anything yet
                await self._in_turn()

    async def reloaded(self) -> document.Reload:
        """The same; returns what came of it, also where another one did what was asked for."""
        with self._announced():
            while (waiting := self._waiting) is not None:
                await waiting.over.wait()
                if waiting.outcome is not None:
                    return waiting.outcome
            return await self._in_turn()

    async def _in_turn(self) -> document.Reload:
        waiting = self._waiting = _Waiting()
        try:
            async with self._one_at_a_time:
                self._waiting = None
                waiting.outcome = await self._reload()
                return waiting.outcome
        finally:
            if self._waiting is waiting:  # it was cancelled before its turn
                self._waiting = None
            waiting.over.set()

    @asynccontextmanager
    async def meanwhile(self) -> AsyncIterator[None]:
        """While the block lasts, nothing is reloaded."""
        async with self._one_at_a_time:
            yield

    async def reload_tls(self) -> None:
        """Certificates, keys, CA and CRL alone. Raises StartFailed; then nothing has changed."""
        with self._announced():
            async with self._one_at_a_time:
                await self._reload_tls()

    async def _reload(self) -> document.Reload:
        self.begun += 1
        with ExitStack() as given_back:
            try:
                # A file system or a name service that hangs does not keep the daemon from ending.
                new = await trio.to_thread.run_sync(self._read_again, abandon_on_cancel=True)
                given_back.push(new.given_back)
                records_to = await self._audit.opened(new.loaded)
                if records_to is not None:
                    given_back.callback(records_to.close)
                await self._logs.read_again(new.loaded)
            except StartFailed as error:
                log.error("reload failed, everything stays as it was: %s", error)
                return self._remember(succeeded=False, text=str(error))
            except Exception:  # the net around a reload: sessions outlive any of them
                log.exception(
                    "reload failed by an error of proxyd's own, everything stays as it was"
                )
                return self._remember(succeeded=False, text="an error of proxyd's own, see the log")
            given_back.pop_all()
            self._audit.put_in_force(new.loaded, records_to)
            self._put_in_force(new)
            self.opened(new.ports, new.given_back)
        source = self._options.source.path
        log.info("configuration reloaded from %s", source)
        waits = _waiting(self._current.now, new.loaded.settings)
        more = f"; what changed of {', '.join(waits)} waits for a restart" if waits else ""
        return self._remember(succeeded=True, text=f"configuration reloaded from {source}{more}")

    async def _reload_tls(self) -> None:
        try:
            tls = await trio.to_thread.run_sync(
                load_tls_for,
                self._current.now.settings,
                self._options.places,
                abandon_on_cancel=True,
            )
        except StartFailed as error:
            log.error("certificates not loaded, those in force stay: %s", error)
            self._remember(succeeded=False, text=str(error))
            raise
        self._current.now = without_trouble(
            replace(self._current.now, tls=tls), Transport.TLS, Part.CERTIFICATES
        )
        log.info("certificates loaded anew")
        self._remember(succeeded=True, text="certificates loaded anew")

    def _remember(self, *, succeeded: bool, text: str) -> document.Reload:
        self.last = document.Reload(at=time.time(), succeeded=succeeded, text=text)
        self.on_change()
        self.on_outcome(self.last)
        return self.last

    def _read_again(self) -> _Reloaded:
        """Raises StartFailed for anything that is wrong and was not before."""
        in_force, places = self._current.now, self._options.places
        loaded = load_checked(self._options.source)
        closed = [each.transport for each in in_force.troubles if each.part is Part.PORT]
        free = _free_keys(in_force.settings, closed)
        # What the sockets were opened with.
        kept = {key: getattr(in_force.settings, key) for key in FIXED_AT_START if key not in free}
        settings = replace(loaded.settings, **kept)
        rules = load_rules(settings)
        tls = attempted(lambda: load_tls_for(settings, places), Transport.TLS, Part.CERTIFICATES)
        offerings, troubles = load_offerings(settings, places)
        if isinstance(tls, Trouble):
            troubles.append(tls)
            tls = None
        for each in troubles:
            if still_known(in_force.troubles, each) is None:
                raise StartFailed(Exit.NETWORK, each.reason, key=each.key)
        with ExitStack() as given_back:
            ports, unopened = open_ports(settings, given_back, closed)
            troubles += unopened
            return _Reloaded(
                loaded=loaded,
                settings=settings,
                rules=rules,
                tls=tls,
                offerings=offerings,
                troubles=tuple(going_on(in_force.troubles, troubles)),
                ports=ports,
                given_back=given_back.pop_all(),
            )

    def _put_in_force(self, new: _Reloaded) -> None:
        settings, in_force = new.settings, self._current.now
        self._clients.change(
            max_clients=fitting(settings.max_clients, in_force.descriptor_room),
            max_anonymous=settings.max_anonymous_clients,
            most_each=settings.proxyd_max_clients_per_peer,
        )
        self._clients.rate.change(
            a_second=settings.proxyd_connection_rate, burst=settings.proxyd_connection_burst
        )
        self._clients.logins.change(settings.proxyd_login_failures)
        self._visitors.change(max_clients=settings.admin_max_clients, max_anonymous=0)
        for key in _waiting(replace(in_force, settings=settings), new.loaded.settings):
            log.warning(
                "%s has changed in the file, which takes a restart: what it was at the start"
                " stays in force",
                key,
            )
        self._current.now = replace(
            in_force,
            settings=settings,
            routes=routing_table(settings, self._options.places),
            rules=new.rules,
            tls=new.tls,
            offerings=new.offerings,
            troubles=new.troubles,
            listeners=(*in_force.listeners, *new.ports),
        )
        tell_of_changes(in_force.troubles, new.troubles)
        for each in self.on_reload:
            each()


def _nobody_serves(_ports: Sequence[Listener], given_back: ExitStack) -> None:
    """Until there is a daemon that does, they are closed again."""
    given_back.close()


def _waiting(in_force: InForce, asked: Settings) -> list[str]:
    """The keys that were changed since the start, and that nothing obeys yet."""
    return [
        key
        for key in waiting_for_restart(in_force.at_start, asked)
        if getattr(asked, key) != getattr(in_force.settings, key)
    ]


def _free_keys(settings: Settings, closed: Iterable[Transport]) -> set[str]:
    """The keys that no socket was opened with, where these ports could not be opened."""
    closed = set(closed)
    free = {
        key
        for transport in closed
        for key in (transport.traits.listen, transport.traits.port, *transport.traits.auth)
    }
    open_ones = [
        each for each in BY_NETWORK if getattr(settings, each.traits.listen) and each not in closed
    ]
    return free if open_ones or not closed else {*free, "listen_addr"}


def going_on(known: Iterable[Trouble], found: Iterable[Trouble]) -> Iterable[Trouble]:
    """What was found to be broken, each since it was first."""
    known = tuple(known)
    for each in found:
        before = still_known(known, each)
        yield each if before is None else replace(each, since=before.since)


def without_trouble(in_force: InForce, transport: Transport, part: Part) -> InForce:
    """The same with one thing mended."""
    troubles = tuple(
        each for each in in_force.troubles if (each.transport, each.part) != (transport, part)
    )
    return replace(in_force, troubles=troubles)


def tell_of_changes(before: Sequence[Trouble], after: Sequence[Trouble]) -> None:
    """Logs what is broken now, or for another reason, and what no longer is."""
    for each in after:
        known = still_known(before, each)
        if known is None or known.reason != each.reason:
            tell(each, logging.ERROR)
    for each in before:
        if still_known(after, each) is None:
            log.warning("clients by %s are served again", each.way)


def tell(trouble: Trouble, level: int) -> None:
    log.log(
        level,
        "clients by %s are not served, all others are: %s; it is tried again from time to time and"
        " at each reload",
        trouble.way,
        trouble.reason,
    )
