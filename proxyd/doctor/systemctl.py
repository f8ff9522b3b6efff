"""What systemd knows of units, asked in one call and without changing anything."""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from proxyd.config.quoting import one_line

_PROPERTIES: Final = (
    "Id,Names,LoadState,UnitFileState,ActiveState,Listen,ExecStart,CapabilityBoundingSet"
)
_ENABLED: Final = frozenset({"enabled", "enabled-runtime"})
_NOT_ENABLED: Final = frozenset({"disabled", "masked", "masked-runtime"})
_ACTIVE: Final = frozenset({"active", "reloading", "activating"})
_DEADLINE_S: Final = 10.0
_LISTEN: Final = re.compile(r"(.+) \(Stream\)")
_COMMAND: Final = re.compile(r"path=(.*?) ; argv\[\]=(.*?) ; ignore_errors=")


class NoSystemd(Exception):
    """systemd does not answer. The text is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The first three are LoadState, UnitFileState and ActiveState, in systemd's own words.

    `listen` has the addresses of a socket as the unit spells them. A service starts `program`, a
    path, by `command`, of which systemd does not say where a word ends that has a space in it, with
    no other `capabilities` than these, which systemd spells in small letters.
    """

    name: str
    load: str = "not-found"
    file: str = ""
    activity: str = "inactive"
    listen: tuple[str, ...] = ()
    program: str = ""
    command: str = ""
    capabilities: frozenset[str] = frozenset()

    @property
    def installed(self) -> bool:
        """A masked one counts: whether there is a file behind the mask is not to be seen."""
        return self.load not in {"not-found", ""}

    @property
    def enabled(self) -> bool:
        return self.file in _ENABLED

    @property
    def may_be_enabled(self) -> bool:
        """Whether it is not, and could be: a static unit has nothing to be enabled by."""
        return self.file in _NOT_ENABLED

    @property
    def active(self) -> bool:
        return self.activity in _ACTIVE

    @property
    def masked(self) -> bool:
        return self.load == "masked"

    @property
    def failed(self) -> bool:
        return self.activity == "failed"

    @property
    def wanted(self) -> bool:
        """Whether it counts, now or after the next boot."""
        return self.enabled or self.active


def show(names: Sequence[str], *, deadline_s: float = _DEADLINE_S) -> dict[str, Unit]:
    """The units by name, each of `names` among them. Raises NoSystemd; may take the deadline."""
    command = ["systemctl", "show", "--no-pager", f"--property={_PROPERTIES}", "--", *names]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=deadline_s,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise NoSystemd("there is no command systemctl") from error
    except subprocess.TimeoutExpired as error:
        raise NoSystemd(f"systemctl did not answer within {deadline_s:g} seconds") from error
    except OSError as error:
        raise NoSystemd(f"systemctl cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        said = one_line((done.stderr.strip() or "it gives no reason").splitlines()[0])
        raise NoSystemd(f"systemctl: {said}")
    found = parse_show(done.stdout)
    return {name: found.get(name, Unit(name=name)) for name in names}


def parse_show(text: str) -> dict[str, Unit]:
    """The units of `systemctl show`, by each of their names."""
    return {name: unit for block in text.split("\n\n") for name, unit in _units_of(block)}


def _units_of(block: str) -> Iterator[tuple[str, Unit]]:
    fields: dict[str, list[str]] = {}
    for line in block.splitlines():
        key, _, value = line.partition("=")
        fields.setdefault(key, []).append(one_line(value))
    if "Id" not in fields:
        return
    last = {key: values[-1] for key, values in fields.items()}
    listen = (_LISTEN.fullmatch(each) for each in fields.get("Listen", ()))
    command = _COMMAND.search(last.get("ExecStart", ""))
    unit = Unit(
        name=last["Id"],
        load=last.get("LoadState", ""),
        file=last.get("UnitFileState", ""),
        activity=last.get("ActiveState", ""),
        listen=tuple(each[1] for each in listen if each),
        program=command[1] if command else "",
        command=command[2] if command else "",
        capabilities=frozenset(last.get("CapabilityBoundingSet", "").split()),
    )
    for name in {unit.name, *last.get("Names", "").split()}:
        yield name, unit
