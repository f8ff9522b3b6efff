"""libvirt's recipe for switching between libvirtd and the modular daemons, for one host.

It is the one of https://libvirt.org/daemons.html ("Switching to modular daemons"): stop, disable,
unmask, enable, start; and for the way back the same with the parts exchanged. What is already so
is left out, so that a recipe of which half was carried out goes on where it ended. Other than
there:

* A daemon is stopped together with its sockets, in one command: were it stopped first, the next
  client would start it again through them.
* `disable` follows Also= in a unit file, and libvirtd.service has virtlogd.socket and
  virtlockd.socket there. Guests need both daemons, so what was enabled of them is enabled again.
* systemd starts no socket for a service that is running, so such a service is stopped first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from proxyd.doctor.state import Mode
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import (
    HYPERVISOR_DAEMONS,
    LOCAL,
    LOCK_DAEMON,
    LOG_DAEMON,
    MODULAR,
    MONOLITHIC,
    NETWORK,
    PROXY,
    units_of,
)

_LAST_GUESTS: Final = "Guests go on running; nobody manages them until the new daemons run."


class NoRecipe(Exception):
    """This host lacks what would be switched to. The text says what to install."""


@dataclass(frozen=True, slots=True)
class Order:
    """One command, and why it is given."""

    why: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchHost:
    """What a recipe is adapted to. `programs` are the daemons whose program is there."""

    units: Mapping[str, Unit]
    programs: frozenset[str]
    guests: int

    def unit(self, name: str) -> Unit:
        return self.units.get(name) or Unit(name=name)

    def units_of(self, daemon: str) -> list[Unit]:
        return [unit for unit in map(self.unit, units_of(daemon)) if unit.installed]

    def has(self, daemon: str) -> bool:
        """Whether it is installed; of what is masked the program tells."""
        units = self.units_of(daemon)
        return any(not unit.masked for unit in units) or (bool(units) and daemon in self.programs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The commands, none if all is so already; and what to know before they are run."""

    to: Mode
    orders: tuple[Order, ...]
    remarks: tuple[str, ...]


def recipe(host: SwitchHost, to: Mode) -> Recipe:
    """What brings this host there. Raises NoRecipe."""
    modular = [daemon for daemon in MODULAR if host.has(daemon)]
    if to is Mode.MODULAR:
        if not set(modular) & set(HYPERVISOR_DAEMONS):
            raise NoRecipe(
                "no modular daemon that runs guests is installed (virtqemud.service and the like);"
                " install the distribution's libvirt-daemon-driver-qemu. Debian 12 has none: there,"
                " proxyd can stand before libvirtd (proxyd_routes)"
            )
        leaving, entering = [MONOLITHIC], modular
        network = _network_of(host, MONOLITHIC)
        proxy = [PROXY] if host.has(PROXY) else []
        groups = [(entering, LOCAL), (proxy, (*LOCAL, *network))]
    else:
        if not host.has(MONOLITHIC):
            raise NoRecipe(
                "libvirtd is not installed; install the distribution's libvirt-daemon or, on"
                " Debian, libvirt-daemon-system"
            )
        leaving = [PROXY, *modular]
        groups = [([MONOLITHIC], (*LOCAL, *_network_of(host, PROXY)))]
    orders = tuple(chain(_leave(host, leaving), *(_enter(host, *group) for group in groups)))
    return Recipe(to=to, orders=orders, remarks=tuple(_remarks(host, to, orders)))


def _network_of(host: SwitchHost, daemon: str) -> list[str]:
    """The network sockets in use, which the other side is to take over."""
    return [suffix for suffix in NETWORK if host.unit(f"{daemon}{suffix}.socket").wanted]


def _leave(host: SwitchHost, daemons: Sequence[str]) -> Iterator[Order]:
    units = [unit for daemon in daemons for unit in host.units_of(daemon)]
    called = _called(daemons)
    active = [unit.name for unit in units if unit.active]
    if active:
        yield _order(f"Stop {called} with its sockets. {_LAST_GUESTS}", "stop", active)
    enabled = [unit.name for unit in units if unit.enabled]
    if enabled:
        yield _order(f"Start {called} no more, also not at boot.", "disable", enabled)
    yield from _keep_helpers(host, disabling=bool(enabled))


def _keep_helpers(host: SwitchHost, *, disabling: bool) -> Iterator[Order]:
    # What runs without being enabled may be so because an earlier attempt ended after `disable`.
    kept = [
        unit.name
        for daemon in (LOG_DAEMON, LOCK_DAEMON)
        for unit in host.units_of(daemon)
        if (disabling and unit.enabled) or (unit.active and unit.may_be_enabled)
    ]
    if kept:
        why = "Keep what guests need: the units disabled above may have taken it along (Also=)."
        yield _order(why, "enable", kept)


def _enter(host: SwitchHost, daemons: Sequence[str], suffixes: Sequence[str]) -> Iterator[Order]:
    for daemon in daemons:
        service = host.unit(f"{daemon}.service")
        sockets = [
            unit
            for unit in (host.unit(f"{daemon}{suffix}.socket") for suffix in suffixes)
            if unit.installed
        ]
        units = [unit for unit in (service, *sockets) if unit.installed]
        if masked := [unit.name for unit in units if unit.masked]:
            yield _order(f"Let {daemon} be started again.", "unmask", masked)
        if disabled := [unit.name for unit in units if unit.may_be_enabled]:
            yield _order(f"Start {daemon} at boot.", "enable", disabled)
        down = [unit.name for unit in sockets if not unit.active]
        if down and service.active:
            why = f"A socket cannot be started while {daemon} runs. Guests go on running."
            yield _order(why, "stop", [service.name])
            down = [unit.name for unit in sockets]
        if down:
            yield _order(f"Listen for clients of {daemon}, which the first starts.", "start", down)


def _order(why: str, verb: str, names: Sequence[str]) -> Order:
    return Order(why, ("systemctl", verb, *names))


def _called(daemons: Sequence[str]) -> str:
    if len(daemons) == 1:
        return daemons[0]
    return "virtproxyd and the modular daemons"


def _remarks(host: SwitchHost, to: Mode, orders: Sequence[Order]) -> Iterator[str]:
    if not orders:
        return
    if host.guests:
        running = "1 QEMU guest is" if host.guests == 1 else f"{host.guests} QEMU guests are"
        yield (
            f"{running} running and will go on running. libvirt itself recommends to shut guests"
            " down or to migrate them first. Until the first client comes, nobody looks after them."
        )
    yield "Clients that are connected now lose their connection."
    old, new = (MONOLITHIC, PROXY) if to is Mode.MODULAR else (PROXY, MONOLITHIC)
    yield (
        f"What {old}.conf says about sockets, certificates and who may come in does not carry"
        f" over: look at /etc/libvirt/{new}.conf first."
    )
    if to is Mode.MODULAR and not host.has(PROXY):
        yield (
            "virtproxyd.service is not installed, so nobody will listen for clients from other"
            " hosts: run proxyd install first."
        )
    masked = [name for order in orders if order.words[1] == "unmask" for name in order.words[2:]]
    if any(name.startswith(MONOLITHIC) for name in masked):
        yield (
            "libvirtd's sockets may be masked because it is started with --listen: then take that"
            " out of its environment file (/etc/default/libvirtd or /etc/sysconfig/libvirtd)."
        )
