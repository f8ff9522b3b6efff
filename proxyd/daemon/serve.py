"""The daemon's life between the command line and its exit status.

    load ─ background ─ log ─ run dir ─ pid file ─ listeners ─ [trio: serve until a signal] ─ close

The order is libvirt's (reference/config.md, section 3): what can fail for a reason that a person
should read fails before the starter is told that the daemon is ready. What was taken is given
back in the opposite order, whatever happens.
"""

import functools
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Final

import trio

from proxyd import __version__
from proxyd.config.listening import (
    Door,
    Transport,
)
from proxyd.config.loading import Loaded
from proxyd.daemon.background import Foreground, Readiness, become_daemon
from proxyd.daemon.descriptors import fitting, raise_descriptor_limit, room_for_sessions
from proxyd.daemon.entrances import (
    Greet,
    greeter,
    load_sasl_for,
    load_tls_for,
    open_entrances,
    polkit_for,
    prover,
)
from proxyd.daemon.exits import Exit, StartFailed
from proxyd.daemon.in_force import InForce, Options
from proxyd.daemon.loaded import load_checked
from proxyd.daemon.log_settings import start_logging
from proxyd.daemon.logs import Logs
from proxyd.daemon.pidfile import PidFileError, acquire_pid_file
from proxyd.daemon.places import Places, routing_table
from proxyd.daemon.reload import reload
from proxyd.daemon.signals import block_signals, received_signals
from proxyd.session.accepting import accept_clients
from proxyd.session.admission import Admission
from proxyd.session.client import Arrival, Services, serve_client
from proxyd.session.handover import Relay, RelayDied
from proxyd.session.presence import Presence
from proxyd.session.roster import Roster
from proxyd.session.starting import Starter
from proxyd.wire.programs import AuthMethod

_LOG_FLUSH_S: Final = 2.0

log = logging.getLogger("daemon.virtproxyd")


def run_daemon(options: Options) -> int:
    """Runs the daemon in this process, or in one in the background; returns its exit status.

    The process is expected to end then: its stop signals stay blocked, so that one that is
    repeated does not turn an orderly end into a killing.
    """
    readiness: Readiness = Foreground()
    logs = Logs()
    try:
        loaded = load_checked(options.source)
        if options.background:
            readiness = _become_daemon()
        # One that comes while we start waits, instead of leaving a pid file and sockets behind.
        block_signals()
        with ExitStack() as given_back:
            given_back.callback(logs.close, _LOG_FLUSH_S)
            start_logging(logs, loaded, options)
            in_force = _take_what_is_needed(loaded, options, given_back)
            return _run(in_force, options, logs, readiness)
    except StartFailed as error:
        readiness.failed(str(error), error.status)
        return error.status


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


def _take_what_is_needed(loaded: Loaded, options: Options, given_back: ExitStack) -> InForce:
    """Run dir, pid file, descriptors, sockets. Raises StartFailed."""
    settings, places = loaded.settings, options.places
    _make_run_dir(places)
    if options.pid_file:
        try:
            given_back.callback(acquire_pid_file(options.pid_file).release)
        except PidFileError as error:
            raise StartFailed(Exit.FAILED, str(error)) from error
    raise_descriptor_limit()
    tls = load_tls_for(settings, places)
    offerings = load_sasl_for(settings, places)
    doors = open_entrances(settings, options, given_back)
    return InForce(
        settings=settings,
        routes=routing_table(settings, places),
        tls=tls,
        offerings=offerings,
        descriptor_room=room_for_sessions(),
        doors=doors,
    )


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


async def _serve(in_force: InForce, options: Options, logs: Logs, readiness: Readiness) -> Exit:
    settings = in_force.settings
    admission = Admission(
        max_clients=fitting(settings.max_clients, in_force.descriptor_room),
        max_anonymous=settings.max_anonymous_clients,
    )
    roster = Roster(admission)
    relay = Relay(roster.relay_ended)
    presence = Presence()
    polkit = polkit_for(in_force)
    starter = Starter(runtime_dir=options.places.runtime_dir, environ=os.environ, euid=os.geteuid())
    services = Services(
        roster=roster,
        presence=presence,
        polkit=polkit,
        starter=starter,
        relay=relay,
        routes=lambda: in_force.routes,
        timeout_s=lambda: in_force.settings.proxyd_handshake_timeout,
        proof=prover(in_force),
        most_per_peer=lambda: in_force.settings.proxyd_max_clients_per_peer,
    )
    with received_signals() as signals:
        async with trio.open_nursery() as outer:
            outer.start_soon(relay.run)
            # Sessions that are not handed over end before the relay does: nothing is ever
            # handed to a relay that has stopped.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(presence.run)
                nursery.start_soon(starter.run)
                if polkit is not None:
                    nursery.start_soon(polkit.run)
                greet = greeter(in_force)
                for listener, door in in_force.doors:
                    nursery.start_soon(_listen_at, listener, door, greet, services, nursery)
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
    listener: socket.socket, door: Door, greet: Greet, services: Services, nursery: trio.Nursery
) -> None:
    def start(sock: socket.socket) -> None:
        try:
            greeting = greet(sock, door)
        except OSError as error:  # it was reset before it was looked at
            log.info("%s: a client was gone at once: %s", door.name, error.strerror)
            sock.close()
            return
        nursery.start_soon(serve_client, Arrival(greeting, door, services))

    await accept_clients(listener, door, services.roster.admission, start)


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
            await reload(in_force, options, logs, admission)
        else:
            log.info("%s: stopping", signal.Signals(number).name)
            nursery.cancel_scope.cancel()
            return
