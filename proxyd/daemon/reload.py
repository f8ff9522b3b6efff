"""Reads the configuration again: all of it takes effect, or nothing does."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from proxyd.config.settings import Settings
from proxyd.daemon.entrances import load_tls_for
from proxyd.daemon.exits import StartFailed
from proxyd.daemon.in_force import InForce, Options
from proxyd.daemon.loaded import load_checked
from proxyd.daemon.log_settings import start_logging
from proxyd.daemon.logs import Logs
from proxyd.daemon.places import Places, routing_table
from proxyd.session.admission import Admission

if TYPE_CHECKING:
    from proxyd.auth.server_tls import ServerTls

# What is built into the sockets and their doors.
_FIXED_AT_START: Final = (
    "listen_tls",
    "listen_addr",
    "tls_port",
    "auth_tls",
    "auth_unix_rw",
    "auth_unix_ro",
    "unix_sock_dir",
    "unix_sock_group",
    "unix_sock_rw_perms",
    "unix_sock_ro_perms",
    "max_queued_clients",
)

log = logging.getLogger("daemon.virtproxyd")


def _reload_tls(settings: Settings, in_force: InForce, places: Places) -> "ServerTls | None":
    """New certificates for a listener that is there; whether it is, was decided at the start."""
    listens = in_force.settings.listen_tls
    return load_tls_for(replace(settings, listen_tls=listens), places)


async def reload(in_force: InForce, options: Options, logs: Logs, admission: Admission) -> None:
    """Reads the configuration again: all of it takes effect, or nothing does."""
    try:
        # In a thread: it reads a file and may ask the name service for a group.
        loaded = await trio.to_thread.run_sync(load_checked, options.source)
        tls = await trio.to_thread.run_sync(_reload_tls, loaded.settings, in_force, options.places)
        start_logging(logs, loaded, options)
    except StartFailed as error:
        log.error("reload failed, everything stays as it was: %s", error)
        return
    settings = loaded.settings
    admission.change(max_clients=settings.max_clients, max_anonymous=settings.max_anonymous_clients)
    for key in _FIXED_AT_START:
        if getattr(settings, key) != getattr(in_force.settings, key):
            log.warning(
                "%s has changed in the file, which takes a restart: what it was at the start"
                " stays in force",
                key,
            )
    # The comparison is always with what the sockets were opened with.
    kept = {key: getattr(in_force.settings, key) for key in _FIXED_AT_START}
    in_force.settings = replace(settings, **kept)
    in_force.routes = routing_table(settings, options.places)
    in_force.tls = tls
    log.info("configuration reloaded from %s", options.source.path)
