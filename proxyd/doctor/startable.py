"""What does not run or listen as it should, daemon by daemon, and what mends it.

Failures, masks, sockets that were not started, are not enabled or belong together. Of a daemon that
the host's mode does not use nothing is started: that would stop those that serve.
"""

from collections.abc import Iterator
from itertools import chain

from proxyd.doctor.findings import Finding, error, listed, note, warning
from proxyd.doctor.orders import Order, forgotten, if_it_ends, lines, listening, order, started
from proxyd.doctor.state import HostState, Mode
from proxyd.doctor.unitnames import (
    DAEMONS,
    LOCAL,
    LOCK_DAEMON,
    LOG_DAEMON,
    MODULAR,
    MONOLITHIC,
    PROXY,
    suffixes_of,
)
from proxyd.doctor.units import contested


def judge(state: HostState) -> Iterator[Finding]:
    """All of it."""
    return chain(
        _failed(state),
        _behindhand(state),
        _until_boot(state),
        _masked(state),
        _incomplete(state),
    )


def _failed(state: HostState) -> Iterator[Finding]:
    """A service that does not start takes its sockets with it: one trouble, told once."""
    for daemon in DAEMONS:
        failed = state.failures(daemon)
        names = [unit.name for unit in failed]
        if not names:
            continue
        told = f"{listed(names)} {'has' if len(names) == 1 else 'have'} failed."
        own = daemon == MONOLITHIC and state.listens_by_itself and f"{daemon}.service" not in names
        if own or not state.belongs(daemon):
            why = (
                "libvirtd makes its sockets itself here."
                if own
                else f"The host is to be {state.meant()}, where {daemon} is not needed: started,"
                " it would take the place of those that serve."
            )
            yield warning(
                "unit-failed",
                told,
                why,
                lines(forgotten(failed)),
            )
            continue
        yield error(
            "unit-failed",
            told,
            f"systemd starts {'it' if len(names) == 1 else 'them'} no more until somebody has"
            " looked.",
            [
                f"journalctl -b -n 20 -u {names[0]}",
                "# mend what it says there, then",
                *lines(_again(state, daemon)),
            ],
        )


def _again(state: HostState, daemon: str) -> Iterator[Order]:
    """What has a daemon that has failed serve: its sockets first, the next client starts it."""
    service = state.unit(f"{daemon}.service")
    suffixes = [
        suffix
        for suffix in suffixes_of(daemon)
        if (unit := state.unit(f"{daemon}{suffix}.socket")).wanted or unit.failed
    ]
    if daemon == MONOLITHIC and state.listens_by_itself:
        suffixes = []
    if suffixes:
        helper = daemon in {LOG_DAEMON, LOCK_DAEMON}
        yield from listening(state.unit, daemon, suffixes, never_stop=helper)
    if service.failed and (service.enabled or not suffixes):
        yield from (
            started(state.unit, daemon)
            if not suffixes
            else [order("Start it.", "start", [service.name])]
        )
    elif not suffixes:
        yield from forgotten(state.units_of(daemon))


def _behindhand(state: HostState) -> Iterator[Finding]:
    """Enabled sockets that were not started; systemd opens none for a service that runs."""
    for daemon in (MONOLITHIC, PROXY, *MODULAR):
        if not state.belongs(daemon):
            continue
        suffixes = [
            suffix
            for suffix in suffixes_of(daemon)
            if (unit := state.unit(f"{daemon}{suffix}.socket")).enabled
            and not unit.active
            and not unit.failed
        ]
        names = [f"{daemon}{suffix}.socket" for suffix in suffixes]
        if names and state.unit(f"{daemon}.socket").active:
            orders = list(listening(state.unit, daemon, suffixes))
            yield warning(
                "not-started",
                f"{listed(names)} {'is' if len(names) == 1 else 'are'} enabled and not started.",
                "Until the next boot nobody listens there."
                + if_it_ends(
                    state.unit, orders, " systemd starts no socket for a service that runs."
                ),
                lines(orders),
            )


def _until_boot(state: HostState) -> Iterator[Finding]:
    """What listens and would not after a boot, where the rest of its mode would."""
    if state.mode_at_boot() is Mode.NONE:
        return  # there is a finding on all of it
    for daemon in (MONOLITHIC, PROXY, *MODULAR):
        main, service = state.unit(f"{daemon}.socket"), state.unit(f"{daemon}.service")
        may = main.may_be_enabled and not main.masked
        if main.active and may and not service.enabled and state.belongs(daemon):
            suffixes = [s for s in LOCAL if state.unit(f"{daemon}{s}.socket").active]
            yield warning(
                "not-enabled",
                f"{daemon} is not enabled.",
                "Its sockets listen until the next boot, and then no more.",
                lines(listening(state.unit, daemon, suffixes)),
            )


def _masked(state: HostState) -> Iterator[Finding]:
    """A mask on what the host's mode does not use is a precaution, not a problem."""
    for daemon in DAEMONS:
        if daemon in {LOG_DAEMON, LOCK_DAEMON}:
            continue  # backends.py has more to say of them
        if daemon == MONOLITHIC and state.listens_by_itself:
            continue
        units = state.units_of(daemon)
        needed = (f"{daemon}.service", *(f"{daemon}{suffix}.socket" for suffix in LOCAL))
        masked = [unit.name for unit in units if unit.masked and unit.name in needed]
        used = state.belongs(daemon) and (daemon == PROXY or any(unit.wanted for unit in units))
        if masked and used:
            suffixes = [s for s in LOCAL if f"{daemon}{s}.socket" in masked]
            orders = list(_unmasked(state, daemon, masked, suffixes))
            yield warning(
                "masked",
                f"{listed(masked)} {'is' if len(masked) == 1 else 'are'} masked.",
                f"systemd does not start what is masked, and {daemon} is in use or needed here."
                + if_it_ends(state.unit, orders),
                lines(orders),
            )


def _unmasked(
    state: HostState, daemon: str, masked: list[str], suffixes: list[str]
) -> Iterator[Order]:
    """Local sockets are to listen then, the others may."""
    orders = list(listening(state.unit, daemon, suffixes))
    named = {name for each in orders for name in each.words[2:] if each.words[1] == "unmask"}
    if others := [name for name in masked if name not in named]:
        yield order("Let them be started.", "unmask", others)
    yield from orders


def _incomplete(state: HostState) -> Iterator[Finding]:
    """Sockets that belong together, of which some are enabled."""
    for daemon in (MONOLITHIC, PROXY, *MODULAR):
        if not state.unit(f"{daemon}.socket").enabled or not state.belongs(daemon):
            continue
        if daemon in {MONOLITHIC, PROXY} and contested(state):
            continue  # one of the two has to go first
        absent = [
            suffix
            for suffix in ("-ro", "-admin")
            if (unit := state.unit(f"{daemon}{suffix}.socket")).installed
            and not unit.enabled
            and not unit.masked
            and not unit.failed
        ]
        if not absent:
            continue
        readonly = absent[0] == "-ro"
        why = "Read-only clients find no socket." if readonly else "virt-admin finds no socket."
        say = warning if readonly else note
        orders = list(listening(state.unit, daemon, absent))
        yield say(
            "incomplete",
            f"{daemon}.socket is enabled without"
            f" {listed(f'{daemon}{suffix}.socket' for suffix in absent)}.",
            why + if_it_ends(state.unit, orders),
            lines(orders),
        )
