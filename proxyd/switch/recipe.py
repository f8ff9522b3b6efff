"""libvirt's recipe for switching between libvirtd and the modular daemons, for one host.

It is the one of https://libvirt.org/daemons.html ("Switching to modular daemons"): stop, disable,
unmask, enable, start; and for the way back the same with the parts exchanged. What is already so
is left out, so that a recipe of which half was carried out goes on where it ended. Other than
there:

* A daemon is stopped together with its sockets, in one command: were it stopped first, the next
  client would start it again through them.
* `disable` follows Also= in a unit file, and libvirtd.service has virtlogd.socket and
  virtlockd.socket there. Guests need both daemons, so what was enabled of them is enabled again.
* The proxy comes first, then the daemons that run guests: when one of the others cannot be started,
  clients have somebody to talk to all the same.
* A host that has been in that mode before gets the daemons that it had then, and no more.

What a daemon needs that is to listen is in proxyd/doctor/orders.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from proxyd.doctor.findings import listed
from proxyd.doctor.orders import Order, listening, order
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """The units of one mode, as they were when the host was in it last."""

    enabled: frozenset[str] = frozenset()
    active: frozenset[str] = frozenset()

    @property
    def wanted(self) -> frozenset[str]:
        return self.enabled | self.active

    @property
    def served(self) -> bool:
        """Whether there was somebody who runs guests: all else is no mode, but an accident."""
        daemons = (MONOLITHIC, *HYPERVISOR_DAEMONS)
        return any(name in self.active for each in daemons for name in units_of(each))


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


def recipe(
    host: SwitchHost,
    to: Mode,
    *,
    network: Sequence[str] | None = None,
    as_before: Arrangement | None = None,
) -> Recipe:
    """What brings this host there. Raises NoRecipe.

    `network` are the suffixes of the network sockets that were in use when the switch was begun,
    None if it begins now; `as_before` is how the host was when it was in that mode last.
    """
    modular = [daemon for daemon in MODULAR if host.has(daemon)]
    if to is Mode.MODULAR:
        if not set(modular) & set(HYPERVISOR_DAEMONS):
            raise NoRecipe(
                "no modular daemon that runs guests is installed (virtqemud.service and the like);"
                " install the distribution's libvirt-daemon-driver-qemu. Debian and Ubuntu have"
                " none: there, libvirtd can serve behind proxyd (docs/deployment/debian.md)"
            )
        leaving = [MONOLITHIC]
        proxy = [PROXY] if host.has(PROXY) else []
        entering = [*proxy, *_as_before(modular, as_before)]
    else:
        if not host.has(MONOLITHIC):
            raise NoRecipe(
                "libvirtd is not installed; install the distribution's libvirt-daemon or, on"
                " Debian, libvirt-daemon-system"
            )
        leaving, entering = [PROXY, *modular], [MONOLITHIC]
    ports = _network_of(host, leaving[0]) if network is None else network
    ports = [*dict.fromkeys([*ports, *_network_of(host, entering[0])])]
    orders = tuple(
        chain(
            _leave(host, leaving),
            *(_enter(host, daemon, ports, as_before) for daemon in entering),
        )
    )
    return Recipe(to=to, orders=orders, remarks=tuple(_remarks(host, to, orders)))


def network_in_use(host: SwitchHost, to: Mode) -> list[str]:
    """The suffixes of the network sockets that the side has which is left for this mode."""
    return _network_of(host, MONOLITHIC if to is Mode.MODULAR else PROXY)


def arrangement(host: SwitchHost, mode: Mode) -> Arrangement:
    """How the units of a mode are now."""
    daemons = (MONOLITHIC,) if mode is Mode.MONOLITHIC else (PROXY, *MODULAR)
    units = [unit for daemon in daemons for unit in host.units_of(daemon)]
    return Arrangement(
        enabled=frozenset(unit.name for unit in units if unit.enabled),
        active=frozenset(unit.name for unit in units if unit.active),
    )


def _as_before(modular: Sequence[str], as_before: Arrangement | None) -> list[str]:
    """Of the daemons that are installed those that were in use, if any of them runs guests."""
    if as_before is None:
        return list(modular)
    used = [each for each in modular if set(units_of(each)) & as_before.wanted]
    return used if set(used) & set(HYPERVISOR_DAEMONS) else list(modular)


def _network_of(host: SwitchHost, daemon: str) -> list[str]:
    """The network sockets in use, which the other side is to take over."""
    return [suffix for suffix in NETWORK if host.unit(f"{daemon}{suffix}.socket").wanted]


def _leave(host: SwitchHost, daemons: Sequence[str]) -> Iterator[Order]:
    units = [unit for daemon in daemons for unit in host.units_of(daemon)]
    called = _called(daemons)
    active = [unit.name for unit in units if unit.active]
    if active:
        yield order(f"Stop {called} with its sockets. {_LAST_GUESTS}", "stop", active)
    enabled = [unit.name for unit in units if unit.enabled]
    if enabled:
        yield order(f"Start {called} no more, also not at boot.", "disable", enabled)
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
        yield order(why, "enable", kept)


def _enter(
    host: SwitchHost, daemon: str, ports: Sequence[str], as_before: Arrangement | None
) -> Iterator[Order]:
    suffixes = [*LOCAL, *(ports if daemon in {PROXY, MONOLITHIC} else ())]
    boot = {f"{daemon}.service", *(f"{daemon}{suffix}.socket" for suffix in suffixes)}
    if as_before is not None and boot & as_before.wanted:
        network = {f"{daemon}{suffix}.socket" for suffix in ports}
        enabled = {name for name in boot if host.unit(name).enabled}
        listened = as_before.wanted | network | enabled
        suffixes = [each for each in suffixes if f"{daemon}{each}.socket" in listened]
        boot &= as_before.enabled | network
    return listening(host.unit, daemon, suffixes, boot=boot)


def _called(daemons: Sequence[str]) -> str:
    if len(daemons) == 1:
        return daemons[0]
    return "virtproxyd and the modular daemons"


def _cut(host: SwitchHost, orders: Iterable[Order]) -> list[str]:
    """The daemons that run and are stopped; those of the helpers have no clients."""
    stopped = {name for each in orders if each.words[1] == "stop" for name in each.words[2:]}
    return [
        daemon
        for daemon in (MONOLITHIC, PROXY, *MODULAR)
        if f"{daemon}.service" in stopped and host.unit(f"{daemon}.service").active
    ]


def _remarks(host: SwitchHost, to: Mode, orders: Sequence[Order]) -> Iterator[str]:
    if not orders:
        return
    if host.guests:
        running = "1 QEMU guest is" if host.guests == 1 else f"{host.guests} QEMU guests are"
        yield (
            f"{running} running and will go on running. libvirt itself recommends to shut guests"
            " down or to migrate them first. Until the first client comes, nobody looks after them."
        )
    if cut := _cut(host, orders):
        yield f"Clients that are connected to {listed(cut)} now lose their connection."
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
