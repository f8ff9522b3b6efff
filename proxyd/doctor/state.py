"""A host as the doctor sees it: values, that one module a subject fills and judges."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from proxyd.admin.document import Program
from proxyd.config.settings import Settings
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import (
    HYPERVISOR_DAEMONS,
    LOCK_DAEMON,
    LOG_DAEMON,
    MODULAR,
    MONOLITHIC,
    PROXY,
    legacy_paths,
    units_of,
)
from proxyd.pki.problems import Problem

PROXYD: Final = "proxyd"
SYSTEMD: Final = "systemd"
# The names that proxyd's command has, and the one of the unit that starts it.
_OURS: Final = frozenset({"proxyd", "virtproxyd"})
# Either lets root read and search what its owner keeps from it.
_READS_ALL: Final = frozenset({"cap_dac_override", "cap_dac_read_search"})


class Mode(StrEnum):
    """Who manages the guests."""

    MONOLITHIC = "monolithic"
    MODULAR = "modular"
    BOTH = "both"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Process:
    """`program` is what it is called: proxyd also where Python runs it."""

    pid: int
    program: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.program or 'a program'} (pid {self.pid})"


def program_of(words: list[str]) -> str:
    """What a command line runs: the name of the program, or of what Python runs for it."""
    if not words:
        return ""
    name = os.path.basename(words[0])
    if not name.startswith("python"):
        return name
    for number, word in enumerate(words[1:], 1):
        if word == "-m":
            module = words[number + 1 : number + 2]
            return _ours_or(module[0].partition(".")[0]) if module else name
        if not word.startswith("-"):
            return _ours_or(os.path.basename(word))
    return name


def _ours_or(script: str) -> str:
    # libvirt's own virtproxyd is not run by Python.
    return PROXYD if script in _OURS else script


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A path or a port, the listening sockets that are bound to it, and who holds them.

    `there` is whether the path exists; a port is there when somebody listens. `lost` is whether the
    path leads to none of those that listen: it was removed, or another file is in its place.
    """

    name: str
    there: bool
    listening: int
    owners: tuple[Process, ...]
    lost: bool = False

    @property
    def hidden(self) -> bool:
        """Somebody listens, and we may not see who."""
        return self.listening > 0 and not self.owners


def port_name(port: int) -> str:
    """What a TCP port is called here."""
    return f"port {port}"


class Answer(StrEnum):
    ANSWERS = "answers"
    ABSENT = "absent"  # there is no such socket
    REFUSED = "refused"  # nobody listens behind it
    DENIED = "denied"  # not for this user
    SILENT = "silent"  # no reply in time
    BROKEN = "broken"  # something that is no reply, or an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of one question. `methods` are names; `detail` is for BROKEN."""

    answer: Answer
    methods: tuple[str, ...] = ()
    detail: str = ""
    took_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A directory that is searched or the file that is read, by its path without symbolic links.

    `mode` has the permission bits alone; `owner` is USER:GROUP, for people.
    """

    path: str
    directory: bool
    uid: int
    gid: int
    mode: int
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """`path` is how the settings call the file; `secret` whether it is nobody else's to read.

    There are no steps to a file that is not there, and fewer where this user may not look further.
    """

    path: str
    secret: bool
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What the file says, or the defaults where it cannot be used; then `trouble` says why.

    `changed` are the keys that it sets to something else than their defaults; `files`, here and
    below: what the daemon reads for it.
    """

    path: str
    settings: Settings
    trouble: str = ""
    doubts: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()  # likewise, of keys that may stay
    changed: tuple[str, ...] = ()
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
    `identities` are those of the server, each with file, key, subject and end;
    `directory` the one that `certs` would work in, "" if the files lie elsewhere, or if the key of
    the CA is not there: nobody can issue certificates here then. `there` are the files that exist.
    """

    asked_by: str
    problems: tuple[Problem, ...]
    until: str = ""
    identities: tuple[str, ...] = ()
    directory: str = ""
    there: frozenset[str] = frozenset()
    files: tuple[Way, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SaslState:
    """What SASL has to offer on one transport; `trouble` if that is nothing.

    `kerberos_missing` is why Kerberos is not among it; "" if it is, or is not to be.
    `kerberos_library` has the lines that install its library, where that is what is missing.
    """

    asked_by: str
    transport: str
    offered: tuple[str, ...] = ()
    trouble: str = ""
    kerberos_missing: str = ""
    kerberos_library: tuple[str, ...] = ()
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
class Rules:
    """The rules file; `trouble` is why it cannot be read. `summary` is all of it in sentences."""

    path: str
    count: int = 0
    trouble: str = ""
    faults: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()
    files: tuple[Way, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """Everything that is judged.

    `as_root` is whether root looks; `no_systemd` why systemd was not asked; `programs` are the
    daemons whose program is there; `proxy_program` is what virtproxyd.service starts; `guests`
    counts the QEMU processes; `switching` is where a switch that has not ended leads; `program` is
    what the proxyd that runs says of itself beside what is installed, None where none was asked.
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
    rules: Rules | None = None
    guests: int = 0
    switching: Mode | None = None
    program: Program | None = None

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

    def meant(self) -> Mode:
        """The mode that the host is to be in, MONOLITHIC, MODULAR or, if nothing tells, NONE.

        Where a switch was begun it is that one's. Otherwise who serves clients now counts more than
        who would be started, and both more than what is there by accident: a daemon of the other
        mode that was started beside them, or has failed.
        """
        if self.switching is not None:
            return self.switching
        for counts, modular in (
            (self._up, HYPERVISOR_DAEMONS),
            (self._up, (PROXY,)),
            (self._enabled, HYPERVISOR_DAEMONS),
            (self._up, MODULAR),
            (self._enabled, MODULAR),
            (self._failed, MODULAR),
        ):
            found = _mode(monolithic=counts(MONOLITHIC), modular=any(map(counts, modular)))
            # What is not installed is meant only where the other is not either.
            if found is not Mode.NONE and found is not Mode.BOTH:
                other = Mode.MONOLITHIC if found is Mode.MODULAR else Mode.MODULAR
                return found if self.possible(found) or not self.possible(other) else other
        owners = {owner.program for owner in self.owners_of(self.legacy_paths()[""])}
        if MONOLITHIC in owners and self.possible(Mode.MONOLITHIC):
            return Mode.MONOLITHIC
        candidates = (Mode.MODULAR, Mode.MONOLITHIC)
        return next((mode for mode in candidates if self.possible(mode)), Mode.NONE)

    def possible(self, mode: Mode) -> bool:
        """Whether the daemons for it are installed: one that runs guests, at least."""
        daemons = {Mode.MODULAR: HYPERVISOR_DAEMONS, Mode.MONOLITHIC: (MONOLITHIC,)}
        return any(map(self.installed, daemons.get(mode, ())))

    def belongs(self, daemon: str) -> bool:
        """Whether it may be started in the mode that is meant: it takes nobody's place there."""
        if daemon in {LOG_DAEMON, LOCK_DAEMON}:
            return True
        return self.meant() is (Mode.MONOLITHIC if daemon == MONOLITHIC else Mode.MODULAR)

    def failures(self, daemon: str) -> list[Unit]:
        """Its units that have failed; none of one that was told to end and did so badly.

        Then nothing of it is wanted any more. libvirt 11.3's daemons may end so.
        """
        units = self.units_of(daemon)
        failed = [unit for unit in units if unit.failed]
        left = [unit.name for unit in failed] == [f"{daemon}.service"]
        return [] if left and not any(unit.wanted for unit in units) else failed

    @property
    def listens_by_itself(self) -> bool:
        """Whether libvirtd makes its own sockets (--listen), for which systemd's are masked."""
        service = self.unit(f"{MONOLITHIC}.service")
        return service.wanted and self.unit(f"{MONOLITHIC}.socket").masked

    def _up(self, daemon: str) -> bool:
        return self.runs(daemon) or any(unit.active for unit in self.units_of(daemon))

    def _failed(self, daemon: str) -> bool:
        return any(unit.failed for unit in self.units_of(daemon))

    def _enabled(self, daemon: str) -> bool:
        return any(unit.enabled for unit in self.units_of(daemon))


def _mode(*, monolithic: bool, modular: bool) -> Mode:
    if monolithic and modular:
        return Mode.BOTH
    if modular:
        return Mode.MODULAR
    return Mode.MONOLITHIC if monolithic else Mode.NONE
