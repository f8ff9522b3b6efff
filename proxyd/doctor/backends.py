"""The daemons behind: asked whether they answer, and judged by it.

The question is a connection, AUTH_LIST, and its reply. AUTH_LIST is what proxyd itself asks first,
so an answer means that a client would get as far as its OPEN. A daemon that systemd starts on
demand is started by it.

Judged with them are the two daemons that no proxy stands before.
"""

import shlex
import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final

from proxyd.config.quoting import one_line
from proxyd.config.routes import Unroutable
from proxyd.config.settings import Settings
from proxyd.doctor.findings import Finding, error, fine, note, warning
from proxyd.doctor.orders import lines, listening, started_anew
from proxyd.doctor.state import PROXYD, Answer, Backend, HostState, Mode, Reply
from proxyd.doctor.surroundings import Surroundings
from proxyd.doctor.unitnames import (
    HYPERVISOR_DAEMONS,
    HYPERVISORS,
    LOCAL,
    LOCK_DAEMON,
    LOG_DAEMON,
    MONOLITHIC,
    PROXY,
    SECONDARY,
    sockets_of,
    suffixes_of,
)
from proxyd.doctor.units import contested
from proxyd.endpoint.contract import HungUp
from proxyd.endpoint.exchange import exchanged
from proxyd.wire import remote
from proxyd.wire.dialogue import Answer as Answered
from proxyd.wire.dialogue import Dialogue, Failed
from proxyd.wire.programs import AuthMethod, Remote
from proxyd.wire.xdr import MalformedFrame

_LARGEST_REPLY: Final = 65536  # an error text, at most
_MOST_AT_ONCE: Final = 32


def look_behind(
    around: Surroundings, settings: Settings, *, deadline_s: float
) -> tuple[Backend, ...]:
    """Each daemon that a name can lead to, asked."""
    table = around.routing_table(settings)
    schemes: dict[str, list[str]] = {}
    found = {}
    for scheme in dict.fromkeys([*HYPERVISORS, *SECONDARY, *table.routes]):
        try:
            destination = table.resolve(f"{scheme}:///system", readonly=False)
        except Unroutable:  # a scheme that no URI can have
            continue
        found[destination.path] = destination
        schemes.setdefault(destination.path, []).append(scheme)
    replies = ask_all(found, deadline_s=deadline_s)
    return tuple(
        Backend(
            schemes=tuple(schemes[path]),
            daemon=destination.daemon,
            path=path,
            unit=destination.unit,
            routed=any(scheme in table.routes for scheme in schemes[path]),
            reply=replies[path],
        )
        for path, destination in found.items()
    )


def ask_all(paths: Iterable[str], *, deadline_s: float) -> dict[str, Reply]:
    """Each socket's reply; all are asked side by side. Takes the deadline at most."""
    paths = list(dict.fromkeys(paths))
    if not paths:
        return {}
    # One that waits in a queue would not have the whole deadline: each has its thread.
    with ThreadPoolExecutor(max_workers=min(len(paths), _MOST_AT_ONCE)) as threads:
        replies = threads.map(lambda path: ask(path, deadline_s=deadline_s), paths)
        return dict(zip(paths, replies, strict=True))


def ask(path: str, *, deadline_s: float) -> Reply:
    """One socket's reply. Blocks until then, for the deadline at most."""
    begin = time.monotonic()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(deadline_s)
            sock.connect(path)
            dialogue = Dialogue(limit=_LARGEST_REPLY)
            answer = exchanged(sock, dialogue, Remote.AUTH_LIST, end=begin + deadline_s)
        methods = _methods_in(answer)
    except FileNotFoundError:
        return Reply(answer=Answer.ABSENT)
    except ConnectionRefusedError:
        return Reply(answer=Answer.REFUSED)
    except PermissionError:
        return Reply(answer=Answer.DENIED)
    except (TimeoutError, BlockingIOError):  # the latter: a full queue of clients
        return Reply(answer=Answer.SILENT)
    except HungUp:
        return Reply(answer=Answer.BROKEN, detail="it hung up without a reply")
    except (OSError, MalformedFrame) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Reply(answer=Answer.BROKEN, detail=one_line(words))
    took_ms = round((time.monotonic() - begin) * 1000)
    return Reply(answer=Answer.ANSWERS, methods=methods, took_ms=took_ms)


def _methods_in(answer: Answered) -> tuple[str, ...]:
    if isinstance(answer, Failed):
        raise MalformedFrame(f"it replied: {answer.failure.message}")
    names = {each.value: each.name.lower() for each in AuthMethod}
    return tuple(
        names.get(number, str(number)) for number in remote.unpack_auth_methods(answer.payload)
    )


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
    """What starts it anew; on a host of the other mode, what brings that about."""
    daemon, service = backend.daemon, f"{backend.daemon}.service"
    if not state.unit(service).installed:
        return []
    if not state.belongs(daemon):
        return [f"proxyd switch --to {state.meant()}"] if state.meant() is not Mode.NONE else []
    look = [f"journalctl -b -n 20 -u {service}"]
    if state.unit(f"{daemon}.socket").enabled and not state.unit(f"{daemon}.socket").active:
        return look + lines(listening(state.unit, daemon, LOCAL))
    if backend.reply.answer is Answer.ABSENT:  # its file was removed
        return look + lines(listening(state.unit, daemon, _listened_by(state, daemon), anew=True))
    return look + lines(started_anew(state.unit, daemon))


def _listened_by(state: HostState, daemon: str) -> list[str]:
    pairs = zip(suffixes_of(daemon), sockets_of(daemon), strict=True)
    return [suffix for suffix, name in pairs if state.unit(name).active]


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
            *(_restart(state, backend)[1:] or ["# and start it anew"]),
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
    elif state.unit(f"{backend.daemon}.socket").active and state.belongs(backend.daemon):
        yield error(
            "socket-lost",
            f"systemd listens for {backend.daemon}, and {backend.path} is gone.",
            f"Clients that need the {backend.schemes[0]} driver get an error until the socket is"
            " made anew. Guests go on running.",
            _restart(state, backend),
        )
    elif (
        state.installed(backend.daemon)
        and state.belongs(backend.daemon)
        and Mode.MONOLITHIC not in {state.mode(), state.mode_at_boot()}
        and state.mode() is not Mode.NONE
        and not any(unit.failed for unit in state.units_of(backend.daemon))
    ):
        orders = lines(listening(state.unit, backend.daemon, LOCAL))
        yield warning(
            "backend-not-started",
            f"{backend.daemon} is installed and has no socket.",
            f"Clients that need the {backend.schemes[0]} driver get an error.",
            orders or [f"systemctl start {backend.daemon}.service"],
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
    told = any(
        state.failures(each) or state.unit(f"{each}.socket").active for each in HYPERVISOR_DAEMONS
    )
    if there or told or not state.proxied or contested(state):
        return
    if state.meant() is Mode.MODULAR and state.possible(Mode.MODULAR):
        fix = ["proxyd switch --to modular"]
    elif state.meant() is Mode.MONOLITHIC:
        fix = [
            "proxyd switch --to monolithic",
            "# or keep proxyd and put libvirtd behind it (docs/deployment/debian.md)",
        ]
    else:
        fix = [
            "# install the modular daemons (libvirt-daemon-driver-qemu; Debian and Ubuntu have"
            " none), or put libvirtd behind proxyd (docs/deployment/debian.md)",
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
    # Its second socket is virt-admin's; by then a daemon that needs the first may have started it.
    boot = sockets_of(LOG_DAEMON)
    enable = lines(listening(state.unit, LOG_DAEMON, [""], boot=boot, never_stop=True))
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
            [
                "# install the distribution's package: libvirt-daemon-system on Debian and Ubuntu,"
                " elsewhere libvirt-daemon-log",
            ],
        )
    elif main.masked or service.masked:
        names = [unit.name for unit in (main, service) if unit.masked]
        yield error(
            "virtlogd-masked",
            f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} masked.",
            why,
            enable,
        )
    elif not main.active and not service.active:
        yield warning(
            "virtlogd-down",
            "virtlogd does not run, and systemd does not listen for it.",
            why,
            enable,
        )
    else:
        yield fine("virtlogd", "virtlogd can be reached by guests (never stop it while any run).")
