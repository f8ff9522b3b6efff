"""The daemon's life between the command line and its exit status.

    load ─ background ─ log ─ run dir ─ pid file ─ listeners ─ audit
         ─ [trio: serve until a signal] ─ close

Listeners are opened, or taken from systemd (activation.py).

The order is libvirt's (docs/protocol/process.md, section 1): what can fail for a reason that a
person should read fails before the starter is told that the daemon is ready. What was taken is
given back in the opposite order, whatever happens.
"""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import trio

from proxyd.audit.writer import Audit
from proxyd.config.listeners import network_listenings
from proxyd.config.settings import Settings
from proxyd.config.shortage import is_shortage, remedy
from proxyd.config.sources import Loaded
from proxyd.config.transports import Transport
from proxyd.daemon.audit_settings import AuditSettings
from proxyd.daemon.control_plane import Daemon
from proxyd.daemon.entrances import (
    attempted,
    load_offerings,
    load_tls_for,
    open_listeners,
    open_ports,
)
from proxyd.daemon.in_force import InForce, Options
from proxyd.daemon.lineage import Lineage, OwnPidFile
from proxyd.daemon.load_config import load_checked
from proxyd.daemon.load_rules import load_rules
from proxyd.daemon.log_settings import LogSettings
from proxyd.daemon.places import Places, routing_table
from proxyd.daemon.ways import Part, Trouble
from proxyd.endpoint.couriers import COURIERS
from proxyd.listen.activation import (
    Passed,
    activated_admin_listeners,
    activated_listeners,
    as_activated,
    recognise,
    take_passed,
    warn_of_no_effect,
)
from proxyd.listen.inherited import Inherited
from proxyd.listen.unix import UnixListener
from proxyd.log.logs import Logs
from proxyd.process.background import Foreground, Readiness, become_daemon
from proxyd.process.descriptors import raise_descriptor_limit, room_for_sessions
from proxyd.process.exit_status import Exit, StartFailed
from proxyd.process.program import Program
from proxyd.process.signals import block_signals
from proxyd.process.systemd_notify import Notifier
from proxyd.session.handover import RelayDied
from proxyd.upgrade.predecessor import Predecessor
from proxyd.upgrade.relaunch import Relaunch

_LOG_FLUSH_S: Final = 2.0
_SETTLES_S: Final = 5.0  # for the start of a few processes, on a busy machine
_START_S: Final = 60.0
# How long a thread may keep the interpreter while another one waits for it: a relay thread with a
# small call, say, while the control plane opens sessions or a handshake spells a name. Python's own
# is 5 ms. Measured on two cores, p50 of an echo through a thread beside 1 / 4 threads of pure
# Python: 5.2 / 32 ms with that, 0.7 / 3.7 with this. Four such threads had done their own work in
# 1.3 s with that and 0.7 with this, and a quiet daemon's calls took the same.
_TURN_S: Final = 0.0005

log = logging.getLogger("daemon.virtproxyd")


def run_daemon(options: Options) -> int:
    """Runs the daemon in this process, or in one in the background; returns its exit status.

    The process is expected to end then: its stop signals stay blocked, so that one that is
    repeated does not turn an orderly end into a killing.
    """
    Program.at_start()
    readiness: Readiness = Foreground()
    logs = Logs()
    # What systemd says in the environment is for this process alone: nothing of it is inherited.
    notifier = Notifier.from_environ(os.environ, pid=os.getpid())
    with ExitStack() as given_back:
        given_back.callback(notifier.close)
        try:
            relaunch = Relaunch.of_this_process(options.directory, notifier.environ)
            predecessor = Predecessor.from_environ(os.environ)
            inherited = Inherited()
            kept: list[int] = []
            if predecessor is None:
                passed = take_passed(os.environ, given_back, pid=os.getpid(), kept=kept)
            else:
                notifier.be_silent()
                inherited = predecessor.learn(given_back)
                passed = [Passed(each.sock, each.service) for each in inherited.of_services()]
                for each in passed:
                    given_back.callback(each.listener.close)
            loaded = load_checked(options.source)
            if options.background and predecessor is None:
                readiness = _become_daemon()
                notifier.main_pid(os.getpid())
            # One that comes while we start waits, instead of leaving a pid file and sockets behind.
            block_signals()
            given_back.callback(logs.close, _LOG_FLUSH_S)
            # Behind the listeners: what is left of sockets of theirs, the kernel would close as a
            # part of our end, and wait for whoever has sent it.
            given_back.callback(COURIERS.settled, _SETTLES_S)
            log_settings = LogSettings(logs, options)
            log_settings.start(loaded)
            audit = AuditSettings(Audit(), options)
            given_back.callback(audit.audit.close, _LOG_FLUSH_S)
            # Keys on a slow disk, a name service that thinks: longer than systemd's own patience.
            notifier.extend_timeout(_START_S)
            lineage = Lineage(
                relaunch=relaunch,
                pid_file=OwnPidFile(options.pid_file, given_back),
                # A shell, a container's first process, a supervisor that is not systemd.
                watched=not (options.background or predecessor or notifier.environ),
                predecessor=predecessor,
                inherited=inherited,
                kept=kept,
            )
            in_force = _take_what_is_needed(loaded, options, passed, given_back, lineage)
            audit.start(loaded)  # whose file stays
            return _run(in_force, options, log_settings, audit, readiness, notifier, lineage)
        except StartFailed as error:
            readiness.failed(str(error), error.status)
            return error.status
        except OSError as error:
            if not is_shortage(error):
                raise
            said = f"cannot start: {error.strerror}; {remedy(error, '')}"
            readiness.failed(said, Exit.FAILED)
            return Exit.FAILED


def _run(
    in_force: InForce,
    options: Options,
    logs: LogSettings,
    audit: AuditSettings,
    readiness: Readiness,
    notifier: Notifier,
    lineage: Lineage,
) -> int:
    status = Exit.FAILED
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    try:
        status = trio.run(_serve, in_force, options, logs, audit, readiness, notifier, lineage)
    except* RelayDied as died:
        log.error("no session can go on: %s", died.exceptions[0])
    finally:
        sys.setswitchinterval(interval)
    return status


def _become_daemon() -> Readiness:
    try:
        return become_daemon()
    except OSError as error:
        raise StartFailed(
            Exit.FAILED, f"cannot go into the background: {error.strerror}"
        ) from error


def _take_what_is_needed(
    loaded: Loaded,
    options: Options,
    passed: list[Passed],
    given_back: ExitStack,
    lineage: Lineage,
) -> InForce:
    """Run dir, pid file, descriptors, sockets. Raises StartFailed."""
    places = options.places
    sockets = recognise(passed, loaded.settings, privileged=places.privileged)
    settings = as_activated(loaded.settings, sockets)
    holds_sockets = not settings.unix_sock_dir and not sockets
    if holds_sockets or os.path.dirname(options.pid_file or "") == places.runtime_dir:
        _make_run_dir(places)
    if lineage.predecessor is None:  # else it is that one's until this one serves
        lineage.pid_file.take()
    inherited = lineage.inherited
    raise_descriptor_limit()
    rules = load_rules(settings)
    troubles: list[Trouble] = []
    tls = attempted(lambda: load_tls_for(settings, places), Transport.TLS, Part.CERTIFICATES)
    if isinstance(tls, Trouble):
        troubles.append(tls)
        tls = None
    offerings, unoffered = load_offerings(settings, places)
    troubles += unoffered
    files: Sequence[UnixListener] = ()
    if sockets:
        warn_of_no_effect(loaded.settings, sockets, loaded.changed)
        listeners = activated_listeners(sockets, settings, privileged=places.privileged)
        admin_listeners = activated_admin_listeners(sockets, settings)
    else:
        # A port may be somebody else's: that is found out before the first client can connect.
        ports, unopened = open_ports(settings, given_back, inherited=inherited)
        troubles += unopened
        _obey_strictness(settings, troubles)
        local, admin_listeners, files = open_listeners(settings, options, given_back, inherited)
        listeners = local + ports
    _obey_strictness(settings, troubles)
    return InForce(
        settings=settings,
        at_start=loaded.settings,
        routes=routing_table(settings, places),
        rules=rules,
        tls=tls,
        offerings=offerings,
        troubles=tuple(troubles),
        descriptor_room=room_for_sessions(by_network=bool(network_listenings(settings))),
        listeners=listeners,
        admin_listeners=admin_listeners,
        services=sockets,
        files=files,
    )


def _obey_strictness(settings: Settings, troubles: Sequence[Trouble]) -> None:
    """Raises StartFailed where what is broken of one way in keeps all others from being served."""
    if settings.proxyd_strict_start and troubles:
        first = troubles[0]
        raise StartFailed(Exit.NETWORK, first.reason, key=first.key)


def _make_run_dir(places: Places) -> None:
    mode = 0o755 if places.privileged else 0o700
    try:
        os.makedirs(places.runtime_dir, mode=mode, exist_ok=True)
    except OSError as error:
        let = "let this user write there" + ("" if places.privileged else " or set XDG_RUNTIME_DIR")
        raise StartFailed(
            Exit.RUN_DIR,
            f"cannot make the run-time directory {places.runtime_dir}: {error.strerror};"
            f" {remedy(error, let)}",
        ) from error


async def _serve(
    in_force: InForce,
    options: Options,
    logs: LogSettings,
    audit: AuditSettings,
    readiness: Readiness,
    notifier: Notifier,
    lineage: Lineage,
) -> Exit:
    return await Daemon(in_force, options, logs, audit, notifier, lineage).run(readiness)
