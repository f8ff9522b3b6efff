"""The daemon's life between the command line and its exit status.

    load ─ background ─ log ─ run dir ─ pid file ─ listeners ─ [trio: serve until a signal] ─ close

The order is libvirt's (reference/config.md, section 3): what can fail for a reason that a person
should read fails before the starter is told that the daemon is ready. What was taken is given
back in the opposite order, whatever happens.
"""

import functools
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Final

import trio

from proxyd import __version__
from proxyd.config.listening import Door, UnixListening, unix_listenings
from proxyd.config.loading import Loaded
from proxyd.config.logstrings import parse_filters, parse_outputs
from proxyd.config.routes import RoutingTable
from proxyd.config.settings import Settings
from proxyd.daemon.background import Foreground, Readiness, become_daemon
from proxyd.daemon.exits import Exit, StartFailed
from proxyd.daemon.journal import journal_is_available
from proxyd.daemon.listeners import ListenerError, UnixListenerSpec, open_unix_listener
from proxyd.daemon.loaded import Source, demand_what_exists, group_id
from proxyd.daemon.logoutputs import LogOutputError
from proxyd.daemon.logs import Logs, default_outputs
from proxyd.daemon.pidfile import PidFileError, acquire_pid_file
from proxyd.daemon.places import Places, routing_table
from proxyd.daemon.signals import block_signals, received_signals
from proxyd.session.accepting import accept_clients
from proxyd.session.admission import Admission
from proxyd.session.client import Arrival, Services, serve_client
from proxyd.session.handover import Relay, RelayDied
from proxyd.session.names import NameService
from proxyd.session.roster import Roster

_DEFAULT_LEVEL: Final = 3
_LOG_FLUSH_S: Final = 2.0

# What is built into the sockets and their doors.
_FIXED_AT_START: Final = (
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
class Options:
    """The command line, understood. `idle_exit_s` 0 means never; `pid_file` "" means none.

    `directory` is where relative paths in the settings start from.
    """

    source: Source
    places: Places
    pid_file: str
    directory: str
    background: bool
    idle_exit_s: int


@dataclass(slots=True)
class InForce:
    """What a reload replaces: read where it is needed, swapped as a whole."""

    settings: Settings
    routes: RoutingTable
    doors: Sequence[tuple[socket.socket, Door]] = field(default_factory=tuple)


def run_daemon(options: Options) -> int:
    """Runs the daemon in this process, or in one in the background; returns its exit status.

    The process is expected to end then: its stop signals stay blocked, so that one that is
    repeated does not turn an orderly end into a killing.
    """
    readiness: Readiness = Foreground()
    logs = Logs()
    try:
        loaded = _load(options.source)
        if options.background:
            readiness = _become_daemon()
        # One that comes while we start waits, instead of leaving a pid file and sockets behind.
        block_signals()
        with ExitStack() as given_back:
            given_back.callback(logs.close, _LOG_FLUSH_S)
            _start_logging(logs, loaded, options)
            in_force = _take_what_is_needed(loaded, options, given_back)
            return _run(in_force, options, logs, readiness)
    except StartFailed as error:
        readiness.failed(str(error), error.status)
        return error.status


def _load(source: Source) -> Loaded:
    """Settings that a daemon can start with. Raises StartFailed; may block."""
    loaded = source.load()
    demand_what_exists(loaded.settings)
    return loaded


def _run(in_force: InForce, options: Options, logs: Logs, readiness: Readiness) -> int:
    status = Exit.FAILED
    try:
        status = trio.run(_serve, in_force, options, logs, readiness)
    except* RelayDied as died:
        log.error("no session can go on: %s", died.exceptions[0])
    return status


def _become_daemon() -> Readiness:
    try:
        return become_daemon()
    except OSError as error:
        raise StartFailed(
            Exit.FAILED, f"cannot go into the background: {error.strerror}"
        ) from error


def _start_logging(logs: Logs, loaded: Loaded, options: Options) -> None:
    settings = loaded.settings
    level = settings.log_level or _DEFAULT_LEVEL
    if settings.log_outputs:
        # Relative to where the daemon was started: in the background it stands in the root.
        outputs = tuple(
            replace(output, target=os.path.join(options.directory, output.target))
            if output.kind == "file" and output.target
            else output
            for output in parse_outputs(settings.log_outputs)
        )
    else:
        outputs = default_outputs(
            level=level,
            daemonized=options.background,
            stdin_is_tty=sys.stdin is not None and sys.stdin.isatty(),
            journald_available=journal_is_available(),
            log_file=options.places.log_file,
        )
    try:
        logs.apply(level, parse_filters(settings.log_filters or ""), outputs)
    except LogOutputError as error:
        raise StartFailed(Exit.FAILED, f"cannot log: {error}") from error
    for doubt in loaded.doubts:
        log.warning("%s", doubt)


def _take_what_is_needed(loaded: Loaded, options: Options, given_back: ExitStack) -> InForce:
    """Run dir, pid file, descriptors, sockets. Raises StartFailed."""
    settings, places = loaded.settings, options.places
    _make_run_dir(places)
    if options.pid_file:
        try:
            given_back.callback(acquire_pid_file(options.pid_file).release)
        except PidFileError as error:
            raise StartFailed(Exit.FAILED, str(error)) from error
    _raise_descriptor_limit()
    gid = group_id(settings.unix_sock_group)
    asked_for = unix_listenings(
        settings,
        privileged=places.privileged,
        directory=os.path.join(options.directory, settings.unix_sock_dir or places.runtime_dir),
    )
    doors = [(_listen(asked, gid, given_back), asked.door) for asked in asked_for]
    return InForce(settings, routing_table(settings, places), doors)


def _listen(asked: UnixListening, gid: int | None, given_back: ExitStack) -> socket.socket:
    spec = UnixListenerSpec(path=asked.path, mode=asked.mode, gid=gid, backlog=asked.backlog)
    try:
        listener = open_unix_listener(spec)
    except ListenerError as error:
        raise StartFailed(Exit.NETWORK, str(error)) from error
    given_back.callback(listener.close)
    return listener.socket


def _make_run_dir(places: Places) -> None:
    mode = 0o755 if places.privileged else 0o700
    try:
        os.makedirs(places.runtime_dir, mode=mode, exist_ok=True)
    except OSError as error:
        raise StartFailed(
            Exit.RUN_DIR,
            f"cannot make the run-time directory {places.runtime_dir}: {error.strerror};"
            " let this user write there" + ("" if places.privileged else " or set XDG_RUNTIME_DIR"),
        ) from error


def _raise_descriptor_limit() -> None:
    # A session takes two descriptors, so the usual soft limit would end at 500 clients.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(in_force: InForce, options: Options, logs: Logs, readiness: Readiness) -> Exit:
    settings = in_force.settings
    admission = Admission(
        max_clients=settings.max_clients, max_anonymous=settings.max_anonymous_clients
    )
    roster = Roster(admission)
    relay = Relay(roster.relay_ended)
    services = Services(
        roster=roster,
        relay=relay,
        names=NameService(),
        routes=lambda: in_force.routes,
        timeout_s=lambda: in_force.settings.proxyd_handshake_timeout,
    )
    with received_signals() as signals:
        async with trio.open_nursery() as outer:
            outer.start_soon(relay.run)
            # Sessions that are not handed over end before the relay does: nothing is ever
            # handed to a relay that has stopped.
            async with trio.open_nursery() as nursery:
                for listener, door in in_force.doors:
                    nursery.start_soon(_listen_at, listener, door, services, nursery)
                if options.idle_exit_s:
                    nursery.start_soon(_exit_when_idle, options.idle_exit_s, roster, nursery)
                nursery.start_soon(
                    functools.partial(_obey, signals, in_force, options, logs, admission, nursery)
                )
                readiness.ready()
                _say_ready(in_force)
            outer.cancel_scope.cancel()
    log.info("stopped")
    return Exit.OK


async def _listen_at(
    listener: socket.socket, door: Door, services: Services, nursery: trio.Nursery
) -> None:
    def start(sock: socket.socket) -> None:
        nursery.start_soon(serve_client, Arrival(sock, door, services))

    await accept_clients(listener, door.name, services.roster.admission, start)


def _say_ready(in_force: InForce) -> None:
    paths = ", ".join(os.fsdecode(listener.getsockname()) for listener, _ in in_force.doors)
    log.info("proxyd %s serves %s", __version__, paths)
    for _, door in in_force.doors:
        if door.method.name == "POLKIT":
            log.warning(
                "%s asks for polkit, which this version cannot do: it lets in root and nobody"
                ' else; for others set auth_unix_rw or auth_unix_ro = "none" and the permissions',
                door.name,
            )


async def _exit_when_idle(seconds: int, roster: Roster, nursery: trio.Nursery) -> None:
    """Ends the daemon when no client was connected for so long (reference/config.md, 8)."""
    while True:
        while roster.clients:
            await roster.wait_change()
        with trio.move_on_after(seconds) as idle:
            await roster.wait_change()
        if idle.cancelled_caught and not roster.clients:
            log.info("no client for %d s: exiting", seconds)
            nursery.cancel_scope.cancel()
            return


async def _obey(
    signals: AsyncIterator[int],
    in_force: InForce,
    options: Options,
    logs: Logs,
    admission: Admission,
    nursery: trio.Nursery,
) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            await _reload(in_force, options, logs, admission)
        else:
            log.info("%s: stopping", signal.Signals(number).name)
            nursery.cancel_scope.cancel()
            return


async def _reload(in_force: InForce, options: Options, logs: Logs, admission: Admission) -> None:
    """Reads the configuration again: all of it takes effect, or nothing does."""
    try:
        # In a thread: it reads a file and may ask the name service for a group.
        loaded = await trio.to_thread.run_sync(_load, options.source)
        _start_logging(logs, loaded, options)
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
    log.info("configuration reloaded from %s", options.source.path)
