"""Reads the configuration again: all of it takes effect, or nothing does."""

import logging
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
from proxyd.daemon.log_settings import start_logging
from proxyd.daemon.logs import Logs
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
    "max_queued_clients",
)

log = logging.getLogger("daemon.virtproxyd")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reloaded:
    """What a reload puts in force, made in a thread: files are read, and the name service asked."""

    loaded: Loaded
    settings: Settings
    tls: "ServerTls | None"
    offerings: "dict[Transport, Offering]"


def _read_again(in_force: InForce, options: Options) -> _Reloaded:
    """Raises StartFailed for anything that is wrong."""
    loaded = load_checked(options.source)
    # What the sockets were opened with.
    kept = {key: getattr(in_force.settings, key) for key in _FIXED_AT_START}
    settings = replace(loaded.settings, **kept)
    return _Reloaded(
        loaded=loaded,
        settings=settings,
        tls=load_tls_for(settings, options.places),
        offerings=load_sasl_for(settings, options.places),
    )


async def reload(in_force: InForce, options: Options, logs: Logs, admission: Admission) -> None:
    """Reads the configuration again: all of it takes effect, or nothing does."""
    try:
        new = await trio.to_thread.run_sync(_read_again, in_force, options)
        start_logging(logs, new.loaded, options)
    except StartFailed as error:
        log.error("reload failed, everything stays as it was: %s", error)
        return
    except Exception:  # the net around a reload: sessions and listeners outlive any of them
        log.exception("reload failed by an error of proxyd's own, everything stays as it was")
        return
    settings = new.settings
    admission.change(
        max_clients=fitting(settings.max_clients, in_force.descriptor_room),
        max_anonymous=settings.max_anonymous_clients,
    )
    for key in _FIXED_AT_START:
        if getattr(new.loaded.settings, key) != getattr(settings, key):
            log.warning(
                "%s has changed in the file, which takes a restart: what it was at the start"
                " stays in force",
                key,
            )
    in_force.settings = settings
    in_force.routes = routing_table(settings, options.places)
    in_force.tls = new.tls
    in_force.offerings = new.offerings
    log.info("configuration reloaded from %s", options.source.path)
