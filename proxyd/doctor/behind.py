"""Judges what stands behind the proxy, and the two daemons that it does not stand before."""

import shlex
from collections.abc import Iterator
from itertools import chain

from proxyd.doctor.addresses import PROXYD
from proxyd.doctor.answering import Answer
from proxyd.doctor.findings import Finding, error, fine, note, warning
from proxyd.doctor.state import Backend, HostState, Mode
from proxyd.doctor.unitnames import (
    HYPERVISOR_DAEMONS,
    LOCK_DAEMON,
    LOG_DAEMON,
    MODULAR,
    MONOLITHIC,
    PROXY,
)
from proxyd.doctor.units import contested


def judge(state: HostState) -> Iterator[Finding]:
    return chain(_backends(state), _hypervisors(state), _helpers(state))


def _backends(state: HostState) -> Iterator[Finding]:
    yield from _unseen(state)
    for backend in state.backends:
        if _leads_back(state, backend):
            yield _loop(state, backend)
        else:
            yield from _of_answer(state, backend)


def _unseen(state: HostState) -> Iterator[Finding]:
    """What an ordinary user may not connect to is nothing that is wrong."""
    denied = [each.daemon for each in state.backends if each.reply.answer is Answer.DENIED]
    if denied and not state.as_root:
        yield note(
            "backend-denied",
            f"Only root may connect to {', '.join(denied)}.",
            "Whether they answer is not known.",
        )


def _leads_back(state: HostState, backend: Backend) -> bool:
    """Whether a route leads to the proxy's own socket."""
    if backend.path not in state.legacy_paths().values():
        return False
    units = [state.unit(f"{PROXY}.socket"), state.unit(f"{PROXY}-ro.socket")]
    owners = {owner.program for owner in state.owners_of(backend.path)}
    listens = any(
        unit.wanted and backend.path in (unit.listen or (backend.path,)) for unit in units
    )
    return bool(owners & {PROXYD, PROXY}) or (listens and MONOLITHIC not in owners)


def _loop(state: HostState, backend: Backend) -> Finding:
    return error(
        "route-to-itself",
        f"{' and '.join(backend.schemes)} URIs are routed to {backend.path}, the proxy's own"
        " socket.",
        "Each client would go round in circles until there are no descriptors left.",
        [
            f"# in {state.configuration.path} set proxyd_routes to the daemon's socket, and keep"
            " libvirtd's sockets apart from proxyd's (unix_sock_dir in libvirtd.conf)",
        ],
    )


def _of_answer(state: HostState, backend: Backend) -> Iterator[Finding]:
    called = f"{backend.daemon} ({backend.path})"
    restart = _restart(state, backend)
    used = any(unit.wanted for unit in state.units_of(backend.daemon))
    match backend.reply.answer:
        case Answer.ANSWERS:
            yield from _of_methods(state, backend)
        case Answer.ABSENT:
            yield from _of_absence(state, backend)
        case Answer.REFUSED:
            yield error(
                "backend-refuses",
                f"{called} has a socket with nobody behind it.",
                "Clients for it are refused"
                + (
                    ", and those without a URI are sent there all the same."
                    if backend.daemon in HYPERVISOR_DAEMONS
                    else "."
                ),
                # What nobody is to use may have left its socket behind.
                restart if used and restart else [f"rm {shlex.quote(backend.path)}"],
            )
        case Answer.DENIED if state.as_root:
            yield error(
                "backend-denied",
                f"{called} may not be connected to, not even by root.",
                "Clients for it are refused. Something besides permissions keeps root out.",
                [f"namei -l {shlex.quote(backend.path)}"],
            )
        case Answer.SILENT:
            yield error(
                "backend-silent",
                f"{called} takes connections and does not answer.",
                "Clients for it wait until proxyd_handshake_timeout is over. Guests go on running"
                " while it is started anew.",
                restart or ["# start it anew"],
            )
        case Answer.BROKEN:
            yield error(
                "backend-broken",
                f"{called} does not answer as a daemon of libvirt: {backend.reply.detail}.",
                "Clients for it get an error.",
                restart or [f"# see who listens there: ss -xlp src {backend.path}"],
            )


def _restart(state: HostState, backend: Backend) -> list[str]:
    service = f"{backend.daemon}.service"
    if not state.unit(service).installed:
        return []
    return [f"journalctl -b -n 20 -u {service}", f"systemctl restart {service}"]


def _of_methods(state: HostState, backend: Backend) -> Iterator[Finding]:
    if "none" in backend.reply.methods or not state.as_root:
        return
    asked = ", ".join(backend.reply.methods) or "nothing that is known"
    yield error(
        "backend-asks",
        f"{backend.daemon} asks root itself to authenticate ({asked}).",
        "proxyd has no password or ticket of its own to show: every client for it is refused.",
        [
            f'# set auth_unix_rw = "polkit" or "none" in /etc/libvirt/{backend.daemon}.conf',
            f"systemctl restart {backend.daemon}.service",
        ],
    )


def _of_absence(state: HostState, backend: Backend) -> Iterator[Finding]:
    if backend.routed:
        yield error(
            "route-to-nothing",
            f"{' and '.join(backend.schemes)} URIs are routed to {backend.path}, where there is"
            " no socket.",
            "Clients with such a URI get an error.",
            [f"# start that daemon, or change proxyd_routes in {state.configuration.path}"],
        )
    elif (
        state.installed(backend.daemon)
        and Mode.MONOLITHIC not in {state.mode(), state.mode_at_boot()}
        and state.mode() is not Mode.NONE
    ):
        yield warning(
            "backend-not-started",
            f"{backend.daemon} is installed and has no socket.",
            f"Clients that need the {backend.schemes[0]} driver get an error.",
            [f"systemctl enable --now {backend.daemon}{{,-ro,-admin}}.socket"],
        )


def _hypervisors(state: HostState) -> Iterator[Finding]:
    """Whether there is anything to stand before."""
    replies = {
        each.daemon: each.reply
        for each in state.backends
        if (each.routed or each.daemon in HYPERVISOR_DAEMONS) and not _leads_back(state, each)
    }
    answering = [name for name, reply in replies.items() if reply.answer is Answer.ANSWERS]
    if answering:
        others = sum(
            each.reply.answer is Answer.ANSWERS
            and each.daemon not in answering
            and not _leads_back(state, each)
            for each in state.backends
        )
        more = f", and {others} other{'s' if others > 1 else ''} beside it" if others else ""
        yield fine("backends", f"{', '.join(answering)} answers{more}.")
        return
    # Of one that is there and does not answer there is a finding already; and which daemon there
    # is to be is not settled while libvirtd and the proxy are both to have one address.
    there = any(reply.answer is not Answer.ABSENT for reply in replies.values())
    if there or not state.proxied or contested(state):
        return
    if any(map(state.installed, MODULAR)):
        fix = ["proxyd switch --to modular"]
    else:
        fix = [
            "# install the modular daemons (libvirt-daemon-driver-qemu), or put proxyd before"
            f' libvirtd: proxyd_routes = [ "qemu=/PATH/OF/SOCKET" ] in {state.configuration.path}',
        ]
    yield error(
        "no-hypervisor",
        "No daemon that runs guests answers behind the proxy.",
        "proxyd takes clients and has nowhere to bring them.",
        fix,
    )


def _helpers(state: HostState) -> Iterator[Finding]:
    """virtlogd and virtlockd, which QEMU's daemon connects to by itself, past any proxy."""
    if state.no_systemd or not any(map(state.installed, ("virtqemud", MONOLITHIC))):
        return
    yield from _log_daemon(state)
    if not state.installed(LOCK_DAEMON):
        yield note(
            "no-virtlockd",
            "virtlockd is not installed.",
            'It matters only where /etc/libvirt/qemu.conf says lock_manager = "lockd".',
        )


def _log_daemon(state: HostState) -> Iterator[Finding]:
    sockets = f"{LOG_DAEMON}{{,-admin}}.socket"
    main, service = state.unit(f"{LOG_DAEMON}.socket"), state.unit(f"{LOG_DAEMON}.service")
    why = (
        "QEMU guests write their logs through it: without it none can be started, unless qemu.conf"
        ' says stdio_handler = "file".'
    )
    if not state.installed(LOG_DAEMON) and not (main.masked or service.masked):
        yield error(
            "no-virtlogd",
            "virtlogd is not installed.",
            why,
            ["# install the distribution's package: libvirt-daemon-log or libvirt-daemon-system"],
        )
    elif main.masked or service.masked:
        names = [unit.name for unit in (main, service) if unit.masked]
        yield error(
            "virtlogd-masked",
            f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} masked.",
            why,
            [f"systemctl unmask {' '.join(names)}", f"systemctl enable --now {sockets}"],
        )
    elif not main.active and not service.active:
        yield warning(
            "virtlogd-down",
            "virtlogd does not run, and systemd does not listen for it.",
            why,
            [f"systemctl enable --now {sockets}"],
        )
    else:
        yield fine("virtlogd", "virtlogd can be reached by guests (never stop it while any run).")
