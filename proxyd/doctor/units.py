"""Units and programs: what systemd knows of them, and what is wrong with that.

Two modes at once, two units for one address, sockets that were not started, masks, the proxy.
"""

import os
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Final

from proxyd.config.settings import SPECS, Settings
from proxyd.config.transports import Transport
from proxyd.doctor.findings import Finding, error, fine, listed, note, warning
from proxyd.doctor.orders import if_it_ends, lines, listening
from proxyd.doctor.state import PROXYD, HostState, Mode, port_name, program_of
from proxyd.doctor.systemctl import NoSystemd, Unit, show
from proxyd.doctor.unitnames import (
    ALL_UNITS,
    DAEMONS,
    LOCAL,
    MODULAR,
    MONOLITHIC,
    PORTS,
    PROXY,
    suffixes_of,
)

_SBIN: Final = ("/usr/sbin", "/usr/local/sbin", "/sbin")
_ELF: Final = b"\x7fELF"
_LISTENERS: Final = {"listen_tcp", "listen_tls", "tcp_port", "tls_port"}  # told of by themselves
_LOCAL_SOCKETS = f"{PROXY}{{,-ro,-admin}}.socket"


def look_at_units() -> tuple[dict[str, Unit], str]:
    """libvirt's units, or none of them and why."""
    try:
        return show(ALL_UNITS), ""
    except NoSystemd as error:
        return {}, str(error)


def look_at_programs() -> frozenset[str]:
    """The daemons whose program is installed."""
    return frozenset(
        daemon
        for daemon in DAEMONS
        if any(os.access(f"{sbin}/{daemon}", os.X_OK) for sbin in _SBIN)
    )


def listens_by(transport: Transport, settings: Settings, units: Mapping[str, Unit]) -> str:
    """Which unit or setting has the proxy listen on the network; "" if none does."""
    traits = transport.traits
    unit = units.get(traits.unit)
    if unit and unit.wanted:
        return unit.name
    main = units.get(f"{PROXY}.socket")
    if main and main.wanted:  # then the keys do nothing
        return ""
    return f"{traits.listen} = 1" if getattr(settings, traits.listen) else ""


def started_by(service: Unit | None) -> str:
    """proxyd or libvirt's own virtproxyd; "" if neither can be told."""
    if service is None or not service.program:
        return ""
    arguments = service.command.removeprefix(service.program).split()
    program = program_of([service.program, *arguments])
    if program == PROXY and not _is_c(service.program):
        return PROXYD
    return program if program in {PROXYD, PROXY} else ""


def _is_c(path: str) -> bool:
    """libvirt's own is a program for the kernel, ours under that name a script."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_ELF)) == _ELF
    except OSError:
        return True


def of_modes(state: HostState) -> Iterator[Finding]:
    """Who manages the guests, and whether two units want one address."""
    return chain(_modes(state), _claims(state))


def _modes(state: HostState) -> Iterator[Finding]:
    now, boot = state.mode(), state.mode_at_boot()
    if state.switching is not None and not state.no_systemd:
        yield _half_switched(state, state.switching)
    elif now is Mode.BOTH or boot is Mode.BOTH:
        yield _both(state, running=now is Mode.BOTH)
    elif state.no_systemd:
        if now is Mode.NONE:
            yield warning("nothing-runs", "No daemon of libvirt runs here, as far as can be seen.")
    elif now is boot is Mode.NONE:
        yield _nothing(state)
    elif now is not boot:
        # Of one that has failed there is another finding, with what mends it.
        if now is not Mode.NONE or not any(unit.failed for unit in state.units.values()):
            yield _differs(state, now, boot)
    else:
        yield fine("mode", f"The host is {now}, now and after the next boot.")


def _half_switched(state: HostState, to: Mode) -> Finding:
    return error(
        "half-switched",
        f"A switch to {to} was begun and has not come to its end.",
        "Some daemons may be of one mode and some of the other.",
        [f"proxyd switch --to {to}", "# or back: proxyd switch --undo"],
    )


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
        _either(state),
    )


def _nothing(state: HostState) -> Finding:
    if state.possible(state.meant()):
        return warning(
            "nothing-enabled",
            "Daemons of libvirt are installed, and none runs or is enabled.",
            "No client of libvirt can be served.",
            [f"proxyd switch --to {state.meant()}"],
        )
    return error(
        "nothing-installed",
        "There is no daemon of libvirt on this host.",
        "proxyd stands before daemons; alone it can serve nobody.",
        [
            "# install the distribution's packages: libvirt-daemon-system on Debian and Ubuntu,"
            " which have libvirtd alone; elsewhere libvirt-daemon-driver-qemu, with the modular"
            " daemons",
        ],
    )


def _differs(state: HostState, now: Mode, boot: Mode) -> Finding:
    if boot is Mode.NONE:
        what = f"The host is {now} now, and after the next boot nothing would be started."
    elif now is Mode.NONE:
        what = f"Nothing runs now; after the next boot the host would be {boot}."
    else:
        what = f"The host is {now} now and would be {boot} after the next boot."
    return warning(
        "boot-differs",
        what,
        "What was started by hand is not enabled, or what is enabled was not started.",
        _either(state, other_too=boot is not Mode.NONE and now is not Mode.NONE),
    )


def _either(state: HostState, *, other_too: bool = True) -> list[str]:
    """To the mode that is meant; the other one is for somebody to decide."""
    meant = state.meant()
    other = Mode.MONOLITHIC if meant is Mode.MODULAR else Mode.MODULAR
    more = [f"# or the other way: proxyd switch --to {other}"] if state.possible(other) else []
    return [f"proxyd switch --to {meant}", *(more if other_too else [])]


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
    yield error(
        "same-address",
        f"Enabled for the same address: {names}.",
        f"Only one can listen on {addresses}, and which one it is may change from boot to boot.",
        _either(state),
    )


def _shared(state: HostState, suffix: str, ours: Unit, theirs: Unit) -> str:
    """The address that both listen on; a drop-in may have given one of them another."""
    usual = state.legacy_paths().get(suffix) or str(PORTS.get(suffix))
    mine, other = ours.listen or (usual,), theirs.listen or (usual,)
    both = [address for address in mine if address in other]
    if not both:
        return ""
    return both[0] if both[0].startswith("/") else port_name(int(both[0].rpartition(":")[2]))


def judge(state: HostState) -> Iterator[Finding]:
    """What is wrong with who serves as the proxy."""
    return _proxy(state)


def _proxy(state: HostState) -> Iterator[Finding]:
    modes = {state.mode(), state.mode_at_boot()}
    if not state.proxied and Mode.MODULAR in modes and state.meant() is Mode.MODULAR:
        yield warning(
            "no-proxy",
            "Nobody listens where clients of libvirtd connect.",
            "Clients from other hosts (TLS, TCP, SSH) and those that ask for libvirt-sock find"
            " nobody.",
            _new_proxy(state),
        )
    yield from _ignored_keys(state)
    if state.proxied:
        yield _serving(state)


def _new_proxy(state: HostState) -> list[str]:
    """Installed where it is not, and listening."""
    orders = lines(listening(state.unit, PROXY, LOCAL))
    if state.installed(PROXY):
        return orders
    return ["proxyd install", *(orders or [f"systemctl enable --now {_LOCAL_SOCKETS}"])]


def _serving(state: HostState) -> Finding:
    """Which program it is that clients meet."""
    if state.runs(PROXYD) or (state.proxy_program == PROXYD and not state.runs(PROXY)):
        return fine("proxy", "proxyd serves as virtproxyd.")
    if state.runs(PROXY) or state.proxy_program == PROXY:
        return note(
            "not-proxyd",
            "What serves as virtproxyd here is libvirt's own, not proxyd.",
            "It works; but none of this host's proxyd_ settings is in force. The exchange ends its"
            " sessions.",
            # Its sockets are made anew, too: proxyd's unit for administrators has one more path.
            ["proxyd install", *lines(listening(state.unit, PROXY, _in_use(state), anew=True))],
        )
    return note("unknown-proxy", "Which program serves as virtproxyd cannot be seen.")


def _in_use(state: HostState) -> list[str]:
    sockets = ((suffix, state.unit(f"{PROXY}{suffix}.socket")) for suffix in suffixes_of(PROXY))
    return [suffix for suffix, unit in sockets if unit.wanted and not unit.masked]


def _ignored_keys(state: HostState) -> Iterator[Finding]:
    settings = state.configuration.settings
    for key, suffix, asked in (
        ("listen_tcp", "-tcp", settings.listen_tcp),
        ("listen_tls", "-tls", settings.listen_tls),
    ):
        unit = state.unit(f"{PROXY}{suffix}.socket")
        if asked and state.activated and not unit.wanted:
            orders = list(listening(state.unit, PROXY, [suffix]))
            yield warning(
                "key-without-effect",
                f"{key} = 1 has no effect, because systemd makes the sockets.",
                f"Nobody listens for these clients until {unit.name} is started."
                + if_it_ends(state.unit, orders),
                lines(orders),
            )
    described = [
        key
        for key in state.configuration.changed
        if SPECS[key].effect.in_own_sockets and key not in _LISTENERS
    ]
    if described and state.activated:
        yield note(
            "sockets-of-systemd",
            f"{listed(described)} {'is' if len(described) == 1 else 'are'} not applied, because"
            " systemd makes the sockets.",
            "What their units say holds.",
            [f"systemctl cat '{PROXY}*.socket'"],
        )


def _shortened(names: list[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
