"""systemd in a few hundred lines: what it does to libvirt's units when it is told to.

Modelled is what has made remedies fail: masks, what conflicts, what is bound to what, Also=, a
socket whose service runs, start limits, and clients that come between two commands. The relations
are those of libvirt's unit files (docs/protocol/systemd.md, section 3); that systemd does what this
says is compared with a real one in tests/system/test_systemd_remedies.py.
"""

import itertools
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import (
    DAEMONS,
    LOCAL,
    LOCK_DAEMON,
    LOG_DAEMON,
    MODULAR,
    MONOLITHIC,
    PROXY,
    sockets_of,
    suffixes_of,
    units_of,
)

HELPERS = (LOG_DAEMON, LOCK_DAEMON)
_BRACES = re.compile(r"([^\s{}]*)\{([^{}]*,[^{}]*)\}([^\s{}]*)")


@dataclass
class ModelUnit:
    """`masked` hides whether it is enabled; `broken` is a service that ends at once."""

    name: str
    installed: bool = False
    enabled: bool = False
    masked: bool = False
    activity: str = "inactive"
    broken: bool = False
    limited: bool = False  # started too often
    file_gone: bool = False  # of a socket that listens

    @property
    def active(self) -> bool:
        return self.activity == "active"

    @property
    def is_socket(self) -> bool:
        return self.name.endswith(".socket")


@dataclass
class SystemdModel:
    """`eager`: a client comes to every socket whenever a command has been run."""

    units: dict[str, ModelUnit] = field(default_factory=dict)
    eager: bool = False
    proxy_program: str = "proxyd"
    killed: set[int] = field(default_factory=set)
    said: list[str] = field(default_factory=list)  # what was refused, and why

    # ---- Making one

    def put(self, daemon: str, *, enabled: bool = False, listening: bool = False, but=()) -> None:
        """Install a daemon's units; all but those with a suffix in `but` are as is said."""
        service = f"{daemon}.service"
        self.units[service] = ModelUnit(service, installed=True, enabled=enabled)
        for suffix, name in zip(suffixes_of(daemon), sockets_of(daemon), strict=True):
            self.units[name] = ModelUnit(
                name,
                installed=True,
                enabled=enabled and suffix not in but,
                activity="active" if listening and suffix not in but else "inactive",
            )

    def unit(self, name: str) -> ModelUnit:
        return self.units.get(name) or ModelUnit(name)

    def copy(self) -> "SystemdModel":
        """Another one in the same state."""
        units = {name: replace(unit) for name, unit in self.units.items()}
        return replace(self, units=units, killed=set(self.killed), said=[])

    # ---- How units stand to each other

    def _service_of(self, socket: str) -> str:
        return f"{_daemon_of(socket)}.service"

    def _bound_to(self, name: str) -> list[str]:
        """What it cannot be without: BindsTo= and Requires=."""
        daemon = _daemon_of(name)
        if name.endswith(".socket"):
            return [] if name == f"{daemon}.socket" else [f"{daemon}.socket"]
        if daemon in {PROXY, *HELPERS}:
            return [f"{daemon}.socket"]
        helpers = [f"{LOG_DAEMON}.socket"] if daemon in {MONOLITHIC, "virtqemud"} else []
        return helpers if daemon == MONOLITHIC else [f"{daemon}.socket", *helpers]

    def _wants(self, name: str) -> list[str]:
        daemon = _daemon_of(name)
        if name.endswith(".socket") or daemon in HELPERS:
            return []
        return [f"{daemon}{suffix}.socket" for suffix in LOCAL]

    def _conflicts(self, name: str) -> list[str]:
        daemon, _, kind = name.partition(".")
        own = _daemon_of(name)
        suffix = daemon.removeprefix(own)
        if own == PROXY:
            return [f"{MONOLITHIC}{suffix}.{kind}"]
        if own == MONOLITHIC:
            others = [f"{each}.service" for each in MODULAR] if kind == "service" else []
            return [f"{PROXY}{suffix}.{kind}", *others]
        return [f"{MONOLITHIC}.service"] if own in MODULAR and kind == "service" else []

    def _also(self, name: str) -> list[str]:
        daemon = _daemon_of(name)
        if daemon == PROXY:
            local = [f"{PROXY}{suffix}.socket" for suffix in LOCAL]
            return local if name in {f"{PROXY}.service", *local} else []
        if name != f"{daemon}.service":
            return []
        helpers = [f"{each}.socket" for each in HELPERS] if daemon == MONOLITHIC else []
        return [
            f"{daemon}.socket",
            *([] if daemon in HELPERS else [f"{daemon}-ro.socket"]),
            *helpers,
        ]

    def _dependents(self, name: str) -> list[str]:
        return [each for each in self.units if name in self._bound_to(each)]

    # ---- What it is told

    def paste(self, line: str, programs: "dict[str, Callable[..., bool]] | None" = None) -> bool:
        """Run a line as bash would. `programs` are those beside systemctl, by their first words."""
        if line.startswith("#"):
            if "mend what it says" in line:
                for unit in self.units.values():
                    unit.broken = False
            return True
        words = shlex.split(expanded(line))
        if words[0] == "systemctl":
            done = self.systemctl(*words[1:])
        else:
            key = next(key for key in (programs or {}) if line.startswith(key))
            done = (programs or {})[key](*words)
        return done

    def systemctl(self, verb: str, *words: str) -> bool:
        """Whether it succeeds. What is not modelled is an error of the test's."""
        names = [word for word in words if not word.startswith("-")]
        missing = [name for name in names if not self.unit(name).installed]
        if missing and verb not in {"unmask", "daemon-reload"}:
            return self._refuse(f"{verb}: {missing[0]} not found")
        act = {
            "start": self._start,
            "stop": self._stop,
            "restart": self._restart,
            "try-reload-or-restart": lambda names: True,
            "enable": self._enable,
            "disable": self._disable,
            "unmask": self._unmask,
            "mask": self._mask,
            "reset-failed": self._reset,
            "daemon-reload": lambda names: True,
            "status": lambda names: True,
            "cat": lambda names: True,
        }[verb]
        done = act(names)
        if done and verb == "enable" and "--now" in words:
            done = self._start(names)
        if self.eager:
            self.clients_come()
        return done

    def clients_come(self) -> None:
        """One to each socket that listens."""
        for unit in list(self.units.values()):
            if unit.is_socket and unit.active and not unit.file_gone:
                self._trigger(unit.name)

    def _trigger(self, socket: str) -> None:
        service = self.unit(self._service_of(socket))
        if service.active:
            return
        if service.masked or not self._start([service.name]):
            # The next try comes at once, for the client still waits, until there were too many.
            service.activity, service.limited = "failed", True
            for name in sockets_of(_daemon_of(socket)):
                if self.unit(name).active:
                    self.unit(name).activity = "failed"

    def _refuse(self, why: str) -> bool:
        self.said.append(why)
        return False

    def _start(self, names: Iterable[str]) -> bool:
        asked = list(names)
        goal = self._closure(asked)
        if goal is None:
            return False
        in_the_way = {
            other
            for name in goal
            for other in (*self._conflicts(name), *self._reverse_conflicts(name))
            if self.unit(other).active
        }
        self._stop(in_the_way)
        # What is ordered before a service that wants it: sockets, the main ones first.
        results = {name: self._start_one(name) for name in sorted(goal, key=_rank)}
        return all(results[name] for name in asked)

    def _reverse_conflicts(self, name: str) -> list[str]:
        return [each for each in self.units if name in self._conflicts(each)]

    def _closure(self, names: list[str]) -> list[str] | None:
        goal: dict[str, None] = {}
        ahead = list(names)
        while ahead:
            name = ahead.pop()
            unit = self.unit(name)
            if name in goal:
                continue
            if unit.masked or not unit.installed:
                self._refuse(f"{name} is masked or missing")
                return None
            if unit.active:
                goal[name] = None
                continue
            goal[name] = None
            ahead += self._bound_to(name)
            ahead += [
                w for w in self._wants(name) if self.unit(w).installed and not self.unit(w).masked
            ]
        return list(goal)

    def _start_one(self, name: str) -> bool:
        unit = self.unit(name)
        if unit.active:
            return True
        if any(not self.unit(each).active for each in self._bound_to(name)):
            return self._refuse(f"{name}: dependency failed")
        if unit.is_socket:
            if self.unit(self._service_of(name)).active:
                return self._refuse(f"{name}: its service is already active, refusing")
            unit.activity, unit.file_gone = "active", False
            return True
        if unit.limited:
            return self._refuse(f"{name}: start request repeated too quickly")
        if unit.broken:
            unit.activity = "failed"
            return self._refuse(f"{name}: failed to start")
        unit.activity = "active"
        return True

    def _stop(self, names: Iterable[str]) -> bool:
        ahead = list(names)
        while ahead:
            name = ahead.pop()
            unit = self.unit(name)
            if unit.active:
                unit.activity, unit.file_gone = "inactive", False
                ahead += self._dependents(name)
        return True

    def _restart(self, names: Iterable[str]) -> bool:
        names = list(names)
        before = {name for name, unit in self.units.items() if unit.active}
        self._stop(names)
        # Those that stopped with it are restarted, too.
        with_it = [name for name in before if not self.unit(name).active and name not in names]
        done = self._start(names)
        for name in sorted(with_it, key=_rank):
            self._start_one(name)
        return done

    def _enable(self, names: Iterable[str]) -> bool:
        names = list(names)
        for name in names:
            if self.unit(name).masked:
                return self._refuse(f"enable: {name} is masked")
        for name in itertools.chain(names, *map(self._also, names)):
            if self.unit(name).installed and not self.unit(name).masked:
                self.units[name].enabled = True
        return True

    def _disable(self, names: Iterable[str]) -> bool:
        names = list(names)
        for name in itertools.chain(names, *map(self._also, names)):
            if self.unit(name).installed and not self.unit(name).masked:
                self.units[name].enabled = False
        return True

    def _mask(self, names: Iterable[str]) -> bool:
        for name in names:
            self.units[name].masked = True
        return True

    def _unmask(self, names: Iterable[str]) -> bool:
        for name in names:
            if name in self.units:
                self.units[name].masked = False
        return True

    def _reset(self, names: Iterable[str]) -> bool:
        for name in names:
            unit = self.units[name]
            unit.limited = False
            if unit.activity == "failed":
                unit.activity = "inactive"
        return True

    # ---- What it would show

    def show(self) -> dict[str, Unit]:
        """As `systemctl show` has it."""
        return {name: self._shown(unit) for name, unit in self.units.items() if unit.installed}

    def _shown(self, unit: ModelUnit) -> Unit:
        from tests.doctor.hosts import listen_of  # noqa: PLC0415 (which may come to need this)

        return Unit(
            name=unit.name,
            load="masked" if unit.masked else "loaded",
            file="masked" if unit.masked else "enabled" if unit.enabled else "disabled",
            activity=unit.activity,
            listen=(listen_of(unit.name),) if unit.is_socket else (),
        )

    def boot(self) -> None:
        """What is enabled is started, as at a boot: nothing else runs."""
        for unit in self.units.values():
            unit.activity, unit.limited, unit.file_gone = "inactive", False, False
        for name in sorted(
            (n for n, u in self.units.items() if u.enabled and not u.masked), key=_rank
        ):
            self._start([name])


def expanded(line: str) -> str:
    """With bash's braces."""
    while found := _BRACES.search(line):
        words = (f"{found[1]}{part}{found[3]}" for part in found[2].split(","))
        line = line[: found.start()] + " ".join(words) + line[found.end() :]
    return line


def _daemon_of(name: str) -> str:
    return next(daemon for daemon in DAEMONS if name in units_of(daemon))


def _rank(name: str) -> tuple[int, int]:
    """A socket before its service, the main one before those that are bound to it."""
    daemon = _daemon_of(name)
    helper = 0 if daemon in HELPERS else 1
    return (helper if name.endswith(".socket") else 2, len(name) - len(daemon))
