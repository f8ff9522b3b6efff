"""Reads the configuration again: all of it takes effect, or nothing does."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import trio

from proxyd.config.listening import Transport
from proxyd.config.loading import Loaded
from proxyd.config.settings import Settings
from proxyd.daemon.descriptors import fitting
from proxyd.daemon.entrances import load_sasl_for, load_tls_for
from proxyd.daemon.exits import StartFailed
from proxyd.daemon.in_force import InForce, Options
from proxyd.daemon.loaded import load_checked
from proxyd.daemon.log_settings import LogSettings
from proxyd.daemon.places import routing_table
from proxyd.session.admission import Admission

if TYPE_CHECKING:
    from proxyd.auth.offering import Offering
    from proxyd.auth.server_tls import ServerTls

# What is built into the sockets and their doors.
_FIXED_AT_START: Final = (
    "listen_tls",
    "listen_tcp",
    "listen_addr",
    "tls_port",
    "tcp_port",
    "auth_tls",
    "auth_tcp",
    "auth_unix_rw",
    "auth_unix_ro",
    "unix_sock_dir",
    "unix_sock_group",
    "unix_sock_rw_perms",
    "unix_sock_ro_perms",
    "unix_sock_admin_perms",
    "max_queued_clients",
    "admin_max_queued_clients",
)

log = logging.getLogger("daemon.virtproxyd")


@dataclass(frozen=True, slots=True, kw_only=True)
class LastReload:
    """How the latest attempt went, for `proxyd status`."""

    at_s: float  # CLOCK_REALTIME
    succeeded: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reloaded:
    """What a reload puts in force, made in a thread: files are read, and the name service asked."""

    loaded: Loaded
    settings: Settings
    tls: "ServerTls | None"
    offerings: "dict[Transport, Offering]"


class Reloader:
    """One reload at a time; `last` is how the latest one went.

    `announced` is entered when a reload is asked for and left when it is over.
    """

    def __init__(
        self,
        in_force: InForce,
        options: Options,
        logs: LogSettings,
        admissions: tuple[Admission, Admission],
        *,
        announced: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.last: LastReload | None = None
        self._in_force = in_force
        self._options = options
        self._logs = logs
        self._clients, self._visitors = admissions
        self._announced = announced
        self._one_at_a_time = trio.Lock()
        self._waits = False  # a whole reload, for whatever goes on before it

    async def reload(self) -> None:
        """Never raises: what cannot be obeyed is logged, and everything stays as it was."""
        with self._announced():
            if self._waits:
                return  # that one has not read anything yet
            self._waits = True
            async with self._one_at_a_time:
                self._waits = False
                await self._reload()

    async def reload_tls(self) -> None:
        """Certificates, keys, CA and CRL alone. Raises StartFailed; then nothing has changed."""
        with self._announced():
            async with self._one_at_a_time:
                await self._reload_tls()

    async def _reload(self) -> None:
        try:
            # A file system or a name service that hangs does not keep the daemon from ending.
            new = await trio.to_thread.run_sync(self._read_again, abandon_on_cancel=True)
            await self._logs.read_again(new.loaded)
        except StartFailed as error:
            log.error("reload failed, everything stays as it was: %s", error)
            self._remember(succeeded=False, text=str(error))
            return
        except Exception:  # the net around a reload: sessions and listeners outlive any of them
            log.exception("reload failed by an error of proxyd's own, everything stays as it was")
            self._remember(succeeded=False, text="an error of proxyd's own, see the log")
            return
        self._put_in_force(new)
        source = self._options.source.path
        log.info("configuration reloaded from %s", source)
        self._remember(succeeded=True, text=f"configuration reloaded from {source}")

    async def _reload_tls(self) -> None:
        try:
            tls = await trio.to_thread.run_sync(
                load_tls_for,
                self._in_force.settings,
                self._options.places,
                abandon_on_cancel=True,
            )
        except StartFailed as error:
            log.error("certificates not loaded, those in force stay: %s", error)
            self._remember(succeeded=False, text=str(error))
            raise
        self._in_force.tls = tls
        log.info("certificates loaded anew")
        self._remember(succeeded=True, text="certificates loaded anew")

    def _remember(self, *, succeeded: bool, text: str) -> None:
        self.last = LastReload(at_s=time.time(), succeeded=succeeded, text=text)

    def _read_again(self) -> _Reloaded:
        """Raises StartFailed for anything that is wrong."""
        loaded = load_checked(self._options.source)
        # What the sockets were opened with.
        kept = {key: getattr(self._in_force.settings, key) for key in _FIXED_AT_START}
        settings = replace(loaded.settings, **kept)
        return _Reloaded(
            loaded=loaded,
            settings=settings,
            tls=load_tls_for(settings, self._options.places),
            offerings=load_sasl_for(settings, self._options.places),
        )

    def _put_in_force(self, new: _Reloaded) -> None:
        settings, in_force = new.settings, self._in_force
        self._clients.change(
            max_clients=fitting(settings.max_clients, in_force.descriptor_room),
            max_anonymous=settings.max_anonymous_clients,
            most_each=settings.proxyd_max_clients_per_peer,
        )
        self._visitors.change(max_clients=settings.admin_max_clients, max_anonymous=0)
        for key in _FIXED_AT_START:
            if getattr(new.loaded.settings, key) != getattr(in_force.at_start, key):
                log.warning(
                    "%s has changed in the file, which takes a restart: what it was at the start"
                    " stays in force",
                    key,
                )
        in_force.settings = settings
        in_force.routes = routing_table(settings, self._options.places)
        in_force.tls = new.tls
        in_force.offerings = new.offerings
