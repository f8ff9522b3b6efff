"""A host as the doctor sees it: values, gathered in one place and judged in another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from proxyd.auth.problems import Problem
from proxyd.config.settings import Settings
from proxyd.doctor.addresses import PROXYD, Address, Process
from proxyd.doctor.answering import Reply
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import MODULAR, MONOLITHIC, PROXY, legacy_paths, units_of
from proxyd.doctor.ways import Way

# Either lets root read and search what its owner keeps from it.
_READS_ALL: Final = frozenset({"cap_dac_override", "cap_dac_read_search"})


class Mode(StrEnum):
    """Who manages the guests."""

    MONOLITHIC = "monolithic"
    MODULAR = "modular"
    BOTH = "both"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What the file says, or the defaults where it cannot be used; then `trouble` says why.

    `files`, here and below: what the daemon reads for it.
    """

    path: str
    settings: Settings
    trouble: str = ""
    doubts: tuple[str, ...] = ()
    files: tuple[Way, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A daemon behind, by its socket. `routed` is whether proxyd_routes names it."""

    schemes: tuple[str, ...]
    daemon: str
    path: str
    unit: str | None
    routed: bool
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsState:
    """The certificates, for a host that is to listen for TLS.

    `asked_by` is the setting or the unit; `until` the day on which the first of them expires;
    `directory` the one that `certs` would work in, "" if the files lie elsewhere.
    """

    asked_by: str
    problems: tuple[Problem, ...]
    until: str = ""
    directory: str = ""
    files: tuple[Way, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SaslState:
    """What SASL has to offer on one transport; `trouble` if that is nothing.

    `kerberos_missing` is why Kerberos is not among it; "" if it is, or is not to be.
    """

    asked_by: str
    transport: str
    offered: tuple[str, ...] = ()
    trouble: str = ""
    kerberos_missing: str = ""
    keytab: str = ""
    passwords: bool = False
    files: tuple[Way, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolkitState:
    """What polkit said. `missing` are the actions that it does not know."""

    asked_by: str
    trouble: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """Everything that is judged.

    `as_root` is whether root looks; `no_systemd` why systemd was not asked; `programs` are the
    daemons whose program is there; `proxy_program` is what virtproxyd.service starts; `guests`
    counts the QEMU processes.
    """

    as_root: bool
    runtime_dir: str
    configuration: Configuration
    no_systemd: str = ""
    units: Mapping[str, Unit] = field(default_factory=dict)
    programs: frozenset[str] = frozenset()
    proxy_program: str = ""
    addresses: tuple[Address, ...] = ()
    backends: tuple[Backend, ...] = ()
    tls: TlsState | None = None
    sasl: tuple[SaslState, ...] = ()
    polkit: PolkitState | None = None
    guests: int = 0

    def unit(self, name: str) -> Unit:
        """What is known of a unit; one that was not asked for is not there."""
        return self.units.get(name) or Unit(name=name)

    def units_of(self, daemon: str) -> list[Unit]:
        """A daemon's units that are installed."""
        return [unit for unit in map(self.unit, units_of(daemon)) if unit.installed]

    def installed(self, daemon: str) -> bool:
        """A mask alone tells nothing of what is behind it; then the program does."""
        units = self.units_of(daemon)
        return any(not unit.masked for unit in units) or (bool(units) and daemon in self.programs)

    def owners_of(self, name: str) -> tuple[Process, ...]:
        return next((each.owners for each in self.addresses if each.name == name), ())

    def runs(self, program: str) -> bool:
        """Whether it was seen to listen anywhere."""
        return any(owner.program == program for each in self.addresses for owner in each.owners)

    @property
    def proxy_units_wanted(self) -> bool:
        return any(unit.wanted for unit in self.units_of(PROXY))

    @property
    def proxied(self) -> bool:
        """Whether somebody stands, or is to stand, where clients of libvirtd connect."""
        return self.proxy_units_wanted or self.runs(PROXYD) or self.runs(PROXY)

    @property
    def activated(self) -> bool:
        """Whether systemd makes the proxy's sockets, and the keys for listeners do nothing."""
        return self.unit(f"{PROXY}.socket").wanted

    @property
    def obeys_modes(self) -> bool:
        """Whether systemd starts the proxy without what lets root read every file."""
        service = self.unit(f"{PROXY}.service")
        started = self.proxy_units_wanted and service.installed
        return started and not service.capabilities & _READS_ALL

    def legacy_paths(self) -> dict[str, str]:
        return legacy_paths(self.runtime_dir)

    def mode(self) -> Mode:
        """Who manages the guests now."""
        return _mode(
            monolithic=self._up(MONOLITHIC), modular=any(self._up(daemon) for daemon in MODULAR)
        )

    def mode_at_boot(self) -> Mode:
        """Who will after the next boot."""
        return _mode(
            monolithic=self._enabled(MONOLITHIC),
            modular=any(self._enabled(daemon) for daemon in MODULAR),
        )

    def _up(self, daemon: str) -> bool:
        return self.runs(daemon) or any(unit.active for unit in self.units_of(daemon))

    def _enabled(self, daemon: str) -> bool:
        return any(unit.enabled for unit in self.units_of(daemon))


def _mode(*, monolithic: bool, modular: bool) -> Mode:
    if monolithic and modular:
        return Mode.BOTH
    if modular:
        return Mode.MODULAR
    return Mode.MONOLITHIC if monolithic else Mode.NONE
