"""Judges units and addresses: two modes at once, two units for one socket, and the like."""

import shlex
from collections.abc import Collection, Iterable, Iterator
from itertools import chain

from proxyd.doctor.addresses import PROXYD, SYSTEMD, Address, Process, port_name
from proxyd.doctor.findings import Finding, error, fine, note, warning
from proxyd.doctor.state import HostState, Mode
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import (
    DAEMONS,
    LOCK_DAEMON,
    LOG_DAEMON,
    MODULAR,
    MONOLITHIC,
    PORTS,
    PROXY,
    sockets_of,
    suffixes_of,
)

_LOCAL_SOCKETS = f"{PROXY}{{,-ro,-admin}}.socket"
_STOP_LIBVIRTD = "systemctl stop libvirtd{,-ro,-admin,-tcp,-tls}.socket libvirtd.service"


def judge(state: HostState) -> Iterator[Finding]:
    return chain(
        _modes(state),
        _claims(state),
        _taken(state),
        _doubled(state),
        _stale(state),
        _failed(state),
        _behindhand(state),
        _masked(state),
        _incomplete(state),
        _proxy(state),
    )


def listed(names: Iterable[str]) -> str:
    """Names as words of a sentence."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _modes(state: HostState) -> Iterator[Finding]:
    now, boot = state.mode(), state.mode_at_boot()
    if now is Mode.BOTH or boot is Mode.BOTH:
        yield _both(state, running=now is Mode.BOTH)
    elif state.no_systemd:
        if now is Mode.NONE:
            yield warning("nothing-runs", "No daemon of libvirt runs here, as far as can be seen.")
    elif now is boot is Mode.NONE:
        yield _nothing(state)
    elif now is not boot:
        yield _differs(state, now, boot)
    else:
        yield fine("mode", f"The host is {now}, now and after the next boot.")


def _both(state: HostState, *, running: bool) -> Finding:
    daemons = [
        daemon
        for daemon in MODULAR
        if any(unit.active if running else unit.enabled for unit in state.units_of(daemon))
    ]
    how = "run at the same time" if running else "would both start at the next boot"
    named = f" ({_shortened(daemons)})" if daemons else ""
    return error(
        "both-modes",
        f"libvirtd and modular daemons{named} {how}.",
        "They manage the same guests, networks and pools from the same files, and keep each other"
        " from starting; which of them a client sees depends on how it connects.",
        _either(state, Mode.MODULAR),
    )


def _nothing(state: HostState) -> Finding:
    for mode in (Mode.MODULAR, Mode.MONOLITHIC):
        if _possible(state, mode):
            return warning(
                "nothing-enabled",
                "Daemons of libvirt are installed, and none runs or is enabled.",
                "No client of libvirt can be served.",
                [f"proxyd switch --to {mode}"],
            )
    return error(
        "nothing-installed",
        "There is no daemon of libvirt on this host.",
        "proxyd stands before daemons; alone it can serve nobody.",
        [
            "# install the distribution's packages: libvirt-daemon-driver-qemu where it has the"
            " modular daemons, libvirt-daemon-system on Debian 12, which has libvirtd alone",
        ],
    )


def _differs(state: HostState, now: Mode, boot: Mode) -> Finding:
    if boot is Mode.NONE:
        what = f"The host is {now} now, and after the next boot nothing would be started."
    elif now is Mode.NONE:
        what = f"Nothing runs now; after the next boot the host would be {boot}."
    else:
        what = f"The host is {now} now and would be {boot} after the next boot."
    keep = boot if now is Mode.NONE else now
    return warning(
        "boot-differs",
        what,
        "What was started by hand is not enabled, or what is enabled was not started.",
        _either(state, keep)
        if boot is not Mode.NONE and now is not Mode.NONE
        else [f"proxyd switch --to {keep}"],
    )


def _either(state: HostState, first: Mode) -> list[str]:
    other = Mode.MONOLITHIC if first is Mode.MODULAR else Mode.MODULAR
    more = [f"# or the other way: proxyd switch --to {other}"] if _possible(state, other) else []
    return [f"proxyd switch --to {first}", *more]


def _possible(state: HostState, mode: Mode) -> bool:
    """Whether the daemons for it are installed."""
    return any(map(state.installed, MODULAR if mode is Mode.MODULAR else (MONOLITHIC,)))


def contested(state: HostState) -> list[tuple[Unit, Unit, str]]:
    """The proxy's unit and libvirtd's for one address, where the next boot would start both."""
    return [
        (ours, theirs, shared)
        for suffix in suffixes_of(PROXY)
        for ours in [state.unit(f"{PROXY}{suffix}.socket")]
        for theirs in [state.unit(f"{MONOLITHIC}{suffix}.socket")]
        if ours.enabled and theirs.enabled and (shared := _shared(state, suffix, ours, theirs))
    ]


def _claims(state: HostState) -> Iterator[Finding]:
    pairs = contested(state)
    if not pairs:
        return
    names = "; ".join(f"{theirs.name} and {ours.name}" for ours, theirs, _ in pairs)
    addresses = listed(shared for *_, shared in pairs)
    keep = Mode.MODULAR if state.mode_at_boot() in {Mode.MODULAR, Mode.BOTH} else Mode.MONOLITHIC
    yield error(
        "same-address",
        f"Enabled for the same address: {names}.",
        f"Only one can listen on {addresses}, and which one it is may change from boot to boot.",
        _either(state, keep),
    )


def _shared(state: HostState, suffix: str, ours: Unit, theirs: Unit) -> str:
    """The address that both listen on; a drop-in may have given one of them another."""
    usual = state.legacy_paths().get(suffix) or str(PORTS.get(suffix))
    mine, other = ours.listen or (usual,), theirs.listen or (usual,)
    both = [address for address in mine if address in other]
    if not both:
        return ""
    return both[0] if both[0].startswith("/") else port_name(int(both[0].rpartition(":")[2]))


def _taken(state: HostState) -> Iterator[Finding]:
    """Addresses that the proxy is to have and somebody else has."""
    taken: dict[Process, dict[str, str]] = {}
    settled = {ours.name for ours, *_ in contested(state)}  # once one of the two is switched to
    for address in state.addresses:
        wanted_by = _wanted_by(state, address)
        others = _others(address)
        if others and wanted_by and not (others[0].program == MONOLITHIC and wanted_by in settled):
            taken.setdefault(others[0], {})[address.name] = wanted_by
    for owner, wishes in taken.items():
        units = [name for name in wishes.values() if name.endswith(".socket")]
        yield error(
            "address-taken",
            f"{owner} listens on {listed(wishes)}, which {listed(wishes.values())}"
            f" want{'s' if len(wishes) == 1 else ''}.",
            _who_is_reached(state, wishes),
            [
                *_stop(state, owner),
                f"systemctl start {' '.join(units)}" if units else "# then start proxyd anew",
            ],
        )


def _others(address: Address) -> list[Process]:
    """Who listens there besides the proxy and systemd, which listens for it."""
    return [owner for owner in address.owners if owner.program not in {SYSTEMD, PROXYD, PROXY}]


def _who_is_reached(state: HostState, names: Collection[str]) -> str:
    if any(each.listening > 1 for each in state.addresses if each.name in names):
        return "Each has a socket of its own there, and clients reach the one that came last."
    return "A socket has one owner: clients reach that one, and the proxy does not start."


def _stop(state: HostState, owner: Process) -> list[str]:
    if owner.program == MONOLITHIC and any(unit.active for unit in state.units_of(MONOLITHIC)):
        return [_STOP_LIBVIRTD]
    return [f"# stop it if it is not needed: {owner.command or owner.program}", f"kill {owner.pid}"]


def _wanted_by(state: HostState, address: Address) -> str:
    """The unit or the setting that is to listen there, if it has not got it; or ""."""
    usual = {path: suffix for suffix, path in state.legacy_paths().items()}
    usual |= {port_name(port): suffix for suffix, port in PORTS.items()}
    for suffix in suffixes_of(PROXY):
        unit = state.unit(f"{PROXY}{suffix}.socket")
        names = [_address_name(each) for each in unit.listen]
        if unit.wanted and address.name in (names or [a for a in usual if usual[a] == suffix]):
            return unit.name
    settings = state.configuration.settings
    if state.activated or not (state.proxied or state.no_systemd):
        return ""
    for key, listens, port in (
        ("listen_tcp = 1", settings.listen_tcp, settings.tcp_port),
        ("listen_tls = 1", settings.listen_tls, settings.tls_port),
    ):
        if listens and address.name == f"port {port}":
            return key
    return ""


def _address_name(listen: str) -> str:
    port = listen.rpartition(":")[2]
    return listen if listen.startswith("/") or not port.isdecimal() else port_name(int(port))


def _doubled(state: HostState) -> Iterator[Finding]:
    """A daemon that binds a path of its own takes it from the one before, which never learns."""
    for address in state.addresses:
        if _others(address) and _wanted_by(state, address):
            continue  # _taken or _claims has named it
        if address.name.startswith("/") and address.listening > 1:
            who = f" ({listed(map(str, address.owners))})" if address.owners else ""
            yield error(
                "two-listeners",
                f"{address.listening} sockets listen on {address.name}{who}.",
                "Clients reach the one that came last; the others wait for clients in vain.",
                [
                    "# stop the daemon that was started by hand, then",
                    f"systemctl restart {_socket_unit_at(state, address.name)}",
                ],
            )


def _stale(state: HostState) -> Iterator[Finding]:
    for address in state.addresses:
        if address.name.startswith("/") and address.there and not address.listening:
            unit = _socket_unit_at(state, address.name)
            active = state.unit(unit).active
            yield warning(
                "stale-socket",
                f"{address.name} is there, and nobody listens behind it.",
                "Clients that choose by what exists connect to it and are refused.",
                [f"systemctl restart {unit}" if active else f"rm {shlex.quote(address.name)}"],
            )


def _socket_unit_at(state: HostState, path: str) -> str:
    for daemon in (PROXY, MONOLITHIC):
        for name in sockets_of(daemon):
            if path in state.unit(name).listen and state.unit(name).wanted:
                return name
    suffix = next((s for s, p in state.legacy_paths().items() if p == path), "")
    return f"{PROXY}{suffix}.socket"


def _failed(state: HostState) -> Iterator[Finding]:
    """A service that does not start takes its sockets with it: one trouble, told once."""
    for daemon in DAEMONS:
        names = [unit.name for unit in state.units_of(daemon) if unit.failed]
        if not names:
            continue
        sockets = [name for name in names if name.endswith(".socket")]
        # With its sockets there again, the next client starts the service.
        again = [f"systemctl restart {' '.join(sockets or names)}"]
        if sockets and sockets != names:
            again.insert(0, f"systemctl reset-failed {names[0]}")
        yield error(
            "unit-failed",
            f"{listed(names)} {'has' if len(names) == 1 else 'have'} failed.",
            f"systemd starts {'it' if len(names) == 1 else 'them'} no more until somebody has"
            " looked.",
            [f"journalctl -b -n 20 -u {names[0]}", "# mend what it says there, then", *again],
        )


def _behindhand(state: HostState) -> Iterator[Finding]:
    """Enabled sockets that were not started; systemd opens none for a service that runs."""
    for daemon in (MONOLITHIC, PROXY):
        main, service = f"{daemon}.socket", f"{daemon}.service"
        names = [
            name
            for name in sockets_of(daemon)
            if (unit := state.unit(name)).enabled and not unit.active and not unit.failed
        ]
        if names and state.unit(main).active:
            stop = [f"systemctl stop {service}"] if state.unit(service).active else []
            yield warning(
                "not-started",
                f"{listed(names)} {'is' if len(names) == 1 else 'are'} enabled and not started.",
                "Until the next boot nobody listens there. systemd starts no socket for a service"
                " that is running, so that is stopped first, which ends its sessions.",
                [*stop, f"systemctl start {' '.join(names)}"],
            )


def _masked(state: HostState) -> Iterator[Finding]:
    """A mask on what the host's mode does not use is a precaution, not a problem."""
    modes = {state.mode(), state.mode_at_boot()}
    for daemon in DAEMONS:
        if daemon in {LOG_DAEMON, LOCK_DAEMON}:
            continue  # behind.py has more to say of them
        units = state.units_of(daemon)
        masked = [unit.name for unit in units if unit.masked]
        used = any(unit.wanted for unit in units)
        if daemon == PROXY:
            used = used or Mode.MODULAR in modes
        if masked and used:
            yield warning(
                "masked",
                f"{listed(masked)} {'is' if len(masked) == 1 else 'are'} masked.",
                f"systemd does not start what is masked, and {daemon} is in use or needed here.",
                [f"systemctl unmask {' '.join(masked)}"],
            )


def _incomplete(state: HostState) -> Iterator[Finding]:
    """Sockets that belong together, of which some are enabled."""
    for daemon in (MONOLITHIC, PROXY, *MODULAR):
        if not state.unit(f"{daemon}.socket").enabled:
            continue
        if daemon in {MONOLITHIC, PROXY} and contested(state):
            continue  # one of the two has to go first
        absent = [
            name
            for name in (f"{daemon}-ro.socket", f"{daemon}-admin.socket")
            if (unit := state.unit(name)).installed and not unit.enabled and not unit.masked
        ]
        if not absent:
            continue
        readonly = absent[0].endswith("-ro.socket")
        why = "Read-only clients find no socket." if readonly else "virt-admin finds no socket."
        say = warning if readonly else note
        yield say(
            "incomplete",
            f"{daemon}.socket is enabled without {listed(absent)}.",
            why,
            [f"systemctl enable --now {' '.join(absent)}"],
        )


def _proxy(state: HostState) -> Iterator[Finding]:
    if not state.proxied and Mode.MODULAR in {state.mode(), state.mode_at_boot()}:
        start = f"systemctl enable --now {_LOCAL_SOCKETS}"
        yield warning(
            "no-proxy",
            "Nobody listens where clients of libvirtd connect.",
            "Clients from other hosts (TLS, TCP, SSH) and those that ask for libvirt-sock find"
            " nobody.",
            [start] if state.installed(PROXY) else ["proxyd install", start],
        )
    yield from _ignored_keys(state)
    if state.proxied:
        yield _serving(state)


def _serving(state: HostState) -> Finding:
    """Which program it is that clients meet."""
    if state.runs(PROXYD) or (state.proxy_program == PROXYD and not state.runs(PROXY)):
        return fine("proxy", "proxyd serves as virtproxyd.")
    if state.runs(PROXY) or state.proxy_program == PROXY:
        return note(
            "not-proxyd",
            "What serves as virtproxyd here is libvirt's own, not proxyd.",
            "It works; but none of this host's proxyd_ settings is in force.",
            ["proxyd install", "systemctl restart virtproxyd.service"],
        )
    return note("unknown-proxy", "Which program serves as virtproxyd cannot be seen.")


def _ignored_keys(state: HostState) -> Iterator[Finding]:
    settings = state.configuration.settings
    for key, suffix, asked in (
        ("listen_tcp", "-tcp", settings.listen_tcp),
        ("listen_tls", "-tls", settings.listen_tls),
    ):
        unit = state.unit(f"{PROXY}{suffix}.socket")
        if asked and state.activated and not unit.wanted:
            yield warning(
                "key-without-effect",
                f"{key} = 1 has no effect, because systemd makes the sockets.",
                f"Nobody listens for these clients until {unit.name} is started; systemd starts no"
                " socket for a service that is running.",
                [
                    "systemctl stop virtproxyd.service",
                    f"systemctl enable --now {unit.name} virtproxyd.socket",
                ],
            )


def _shortened(names: list[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
