"""What is to be done on a host once proxyd's files are there: that depends on who serves there now.

The sockets of libvirtd and of the proxy are the same, and their units exclude each other: enabled
beside a libvirtd that serves, the proxy's would switch it off.
"""

from collections.abc import Iterator

from proxyd.config.settings import resolve
from proxyd.doctor.orders import lines, listening
from proxyd.doctor.state import Configuration, HostState, Mode
from proxyd.doctor.unitnames import LOCAL, PROXY, suffixes_of
from proxyd.doctor.units import look_at_programs, look_at_units


def next_lines() -> list[str]:
    """Lines for root's bash. Asks systemd, and changes nothing."""
    units, no_systemd = look_at_units()
    settings = resolve({}, privileged=True)
    return list(
        lines_for(
            HostState(
                as_root=True,
                runtime_dir="/run/libvirt",
                configuration=Configuration(path="", settings=settings),
                no_systemd=no_systemd,
                units=units,
                programs=look_at_programs(),
            )
        )
    )


def lines_for(state: HostState) -> Iterator[str]:
    """The same for a host that was looked at."""
    if state.no_systemd:
        return
    if state.meant() is Mode.MONOLITHIC:
        yield from _before_libvirtd(state)
    elif state.meant() is Mode.MODULAR:
        yield from _before_modular(state)
    yield "proxyd doctor"


def _before_libvirtd(state: HostState) -> Iterator[str]:
    if state.possible(Mode.MODULAR):
        yield "# libvirtd serves here; this changes over, and proxyd switch --undo goes back"
        yield "proxyd switch --to modular"
        return
    yield "# libvirtd serves here; do not enable the proxy's sockets, which would take its place"
    yield "# it can serve behind proxyd: three units (docs/deployment/debian.md), and with these"
    yield "# proxyd switch --to modular changes over, and proxyd switch --undo goes back"


def _before_modular(state: HostState) -> Iterator[str]:
    used = [s for s in suffixes_of(PROXY) if state.unit(f"{PROXY}{s}.socket").active]
    if used:
        yield "# who serves now is exchanged, which ends the sessions"
        yield from lines(listening(state.unit, PROXY, used, anew=True))
    else:
        yield from lines(listening(state.unit, PROXY, LOCAL))
