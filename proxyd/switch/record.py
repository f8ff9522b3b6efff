"""What a switch is about to do and how the host was before: a file, written before all else.

It lies in /var/lib, because a switch may be cut off by a reboot as well as by a failure, and what
/run holds is gone then. Recorded are systemd's own records of what is enabled and masked, which are
symbolic links, and what was active. By it a switch is gone on with and gone back from.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from proxyd.deploy.putting import write_whole
from proxyd.doctor.state import Mode
from proxyd.doctor.systemctl import Unit
from proxyd.doctor.unitnames import ALL_UNITS
from proxyd.switch.recipe import Arrangement

PATH: Final = Path("/var/lib/proxyd/switch.json")
LINKS: Final = (Path("/etc/systemd/system"), Path("/run/systemd/system"))
_VERSION: Final = 1
_MODE: Final = 0o600
_DEPENDENCIES: Final = (".wants", ".requires")


class BadRecord(Exception):
    """The file cannot be understood; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """A host's units: the links that enable and mask them, by path, and which were active."""

    links: Mapping[str, str]
    active: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`before` is how the host was when it left the mode that it was in, however many tries ago.

    `network` are the suffixes of the network sockets that were in use then. `plan` and `done` are
    the commands and how many of them have succeeded. `sides` is how each mode was when the host was
    in it last.
    """

    to: Mode
    begun: float
    network: tuple[str, ...]
    before: Before
    plan: tuple[tuple[str, ...], ...] = ()
    done: int = 0
    finished: bool = False
    sides: Mapping[Mode, Arrangement] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path = PATH) -> Self | None:
        """The one that is there. Raises BadRecord, PermissionError."""
        try:
            read = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except PermissionError:
            raise
        except (OSError, ValueError) as error:
            raise BadRecord(_unreadable(path, str(error))) from error
        try:
            return cls(**_values(read))
        except (KeyError, TypeError, ValueError) as error:
            raise BadRecord(_unreadable(path, "it does not say what was switched")) from error

    def save(self, path: Path = PATH) -> None:
        """Whole or not at all. Raises OSError."""
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        text = json.dumps(
            {
                "version": _VERSION,
                "to": self.to,
                "begun": self.begun,
                "network": self.network,
                "before": {"links": dict(self.before.links), "active": sorted(self.before.active)},
                "plan": self.plan,
                "done": self.done,
                "finished": self.finished,
                "sides": {
                    mode: {"enabled": sorted(side.enabled), "active": sorted(side.active)}
                    for mode, side in self.sides.items()
                },
            },
            indent=1,
        )
        write_whole(path, text.encode() + b"\n", _MODE)

    def after(self, done: int) -> "Record":
        """The same when so many commands have been run."""
        return replace(self, done=done)

    @property
    def day(self) -> str:
        """When it was begun, for people."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.begun))


def under_way(path: Path = PATH) -> Mode | None:
    """Where a switch leads that has not ended; None where there is none, or none can be seen."""
    try:
        record = Record.load(path)
    except (BadRecord, OSError):
        return None
    return record.to if record is not None and not record.finished else None


def look_back(units: Mapping[str, Unit], directories: Sequence[Path] = LINKS) -> Before:
    """How the host is now."""
    return Before(
        links=dict(_links(directories)),
        active=frozenset(unit.name for unit in units.values() if unit.active),
    )


def _links(directories: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Those by which libvirt's units are enabled or masked."""
    for directory in directories:
        beside = [each for end in _DEPENDENCIES for each in sorted(directory.glob(f"*{end}"))]
        for place in (directory, *beside):
            for name in ALL_UNITS:
                path = place / name
                if path.is_symlink():
                    yield str(path), os.readlink(path)


def _values(read: Any) -> dict[str, Any]:
    if read["version"] != _VERSION:
        raise ValueError(read["version"])
    return {
        "to": Mode(read["to"]),
        "begun": float(read["begun"]),
        "network": tuple(map(str, read["network"])),
        "before": Before(
            links={str(path): str(target) for path, target in read["before"]["links"].items()},
            active=frozenset(read["before"]["active"]),
        ),
        "plan": tuple(tuple(map(str, words)) for words in read["plan"]),
        "done": int(read["done"]),
        "finished": bool(read["finished"]),
        "sides": {
            Mode(mode): Arrangement(
                enabled=frozenset(side["enabled"]), active=frozenset(side["active"])
            )
            for mode, side in read["sides"].items()
        },
    }


def _unreadable(path: Path, reason: str) -> str:
    return (
        f"{path}, which tells how this host was before it was switched, cannot be read: {reason};"
        " bring it back from a backup, or remove it, and the next switch begins anew"
    )
