"""Targets: the text `NAME=KIND:ADDRESS,key=value…` as a value. Nothing is opened here.

A new protection of TCP is a member of `Protection`, and a branch in `connecting.secure` or
`entrance.way_in`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

from .failures import UsageError

# A UNIX socket address holds 108 bytes with its NUL: unix(7).
MAX_UNIX_PATH: Final = 107
MAX_PORT: Final = 65535
# A name of 63 characters between dots at the most, or the resolver's encoding breaks on it.
_HOST_AND_PORT: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[\w-]{1,63}(\.[\w-]{1,63})*)):(?P<port>[0-9]{1,5})",
    re.ASCII,
)
_LABEL: Final = re.compile(r"[a-z][a-z0-9_-]*")
_PIDS: Final = re.compile(r"[1-9][0-9]*(\+[1-9][0-9]*)*")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.path

    def __str__(self) -> str:
        return f"unix:{self.place}"


class Protection(Enum):
    """What is on top of TCP, by the kind of target that asks for it."""

    NONE = "tcp"
    TLS = "tls"
    GSSAPI = "gssapi"  # once AUTH_SASL_STEP says so
    SCRAM_TLS = "scram+tls"  # TLS, and inside it a password


# libvirt's own
_USUAL_PORTS: Final = {
    Protection.NONE: 16509,
    Protection.TLS: 16514,
    Protection.GSSAPI: 16509,
    Protection.SCRAM_TLS: 16514,
}


@dataclass(frozen=True, slots=True)
class TcpAddress:
    protection: Protection
    host: str
    port: int

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.protection.value}:{self.place}"


Address = UnixAddress | TcpAddress


@dataclass(frozen=True, slots=True)
class PidGroup:
    """Processes whose cost is added up and shown under one label."""

    label: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers calls, and the processes that this costs."""

    name: str
    address: Address
    groups: tuple[PidGroup, ...] = ()
    uri: str | None = None  # None: the URI of the whole run


def _unix(text: str) -> UnixAddress:
    if not text.startswith("/"):
        raise UsageError(f"{text!r} is no absolute path")
    if len(text.encode()) > MAX_UNIX_PATH:
        raise UsageError(f"{text!r} is longer than the {MAX_UNIX_PATH} bytes of a socket address")
    return UnixAddress(text)


def _tcp(protection: Protection, text: str) -> TcpAddress:
    kind, usual = protection.value, _USUAL_PORTS[protection]
    found = _HOST_AND_PORT.fullmatch(text)
    if not found:
        raise UsageError(f"{text!r} is no HOST:PORT or [IPV6]:PORT, as in {kind}:[::1]:{usual}")
    port = int(found["port"])
    if not 1 <= port <= MAX_PORT:
        raise UsageError(f"{port} is no port; libvirt's own for {kind.upper()} is {usual}")
    return TcpAddress(protection, found["six"] or found["host"], port)


KINDS: Final[dict[str, Callable[[str], Address]]] = {
    "unix": _unix,
    **{protection.value: partial(_tcp, protection) for protection in Protection},
}


def parse_target(text: str) -> Target:
    """Raises UsageError, which says what was expected and names the target where it can."""
    name, equals, rest = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise UsageError(f"target {text!r}: expected NAME=KIND:ADDRESS,key=value…")
    address, *options = rest.split(",")
    try:
        uri, groups = _options(options)
        return Target(name, _address(address), groups, uri)
    except UsageError as error:
        raise UsageError(f"target {name}: {error}") from None


def parse_targets(texts: list[str]) -> tuple[Target, ...]:
    """All targets of a run; two of them may share an address but not a name."""
    targets = tuple(parse_target(text) for text in texts)
    names = [target.name for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"target {name} is given twice; every target needs its own name")
    return targets


def _address(text: str) -> Address:
    kind, colon, rest = text.partition(":")
    if not colon or kind not in KINDS:
        raise UsageError(f"{text!r} is no KIND:ADDRESS; the kinds are: {', '.join(sorted(KINDS))}")
    return KINDS[kind](rest)


def _options(options: list[str]) -> tuple[str | None, tuple[PidGroup, ...]]:
    uri: str | None = None
    pids: dict[str, tuple[int, ...]] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"{option!r} is no key=value (a comma cannot be part of a value)")
        if key == "uri":
            uri = value
        else:
            pids[key] = pids.get(key, ()) + _pids(key, value)
    return uri, tuple(PidGroup(label, found) for label, found in pids.items())


def _pids(label: str, value: str) -> tuple[int, ...]:
    if not _LABEL.fullmatch(label):
        raise UsageError(f"{label!r} is no label; expected lower case letters, digits, - and _")
    if not _PIDS.fullmatch(value):
        raise UsageError(
            f"{label}={value} is no process id; besides uri= every key is a label for process ids,"
            " as in pid=456+457,backend=123"
        )
    return tuple(int(pid) for pid in value.split("+"))
