"""What `proxyd status` and `proxyd clients` are told: made by the daemon, read by the commands.

Both ends use these classes, so a screen can show nothing that the daemon does not send.
docs/status.md has every key with its meaning; a test holds it to what stands here. On the wire it
is JSON (wire/proxyd_program.py), an object for each class, with these rules:

* Keys are added and never renamed. A reader passes over what it does not know, and a field that has
  a default need not be there: a daemon that is older says less. `FORMAT` counts up when a key
  changes its meaning or goes.
* A field whose default is None is left out when it is None; any other None is null.
* The fields of a `flat` one stand among those of the class that has it, or are not there at all.

Names that end in `_s` are seconds, in `_ms` milliseconds; `…_at` and `at` are seconds since the
epoch.
"""

import math
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from proxyd.negotiation.identity import ClientIdentity
from proxyd.negotiation.terms import TlsTerms

FORMAT: Final = 1
_FLAT: Final = {"flat": True}

_Document = TypeVar("_Document")


class Unreadable(Exception):
    """A text is no such document; the words say where, and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listening socket; of the admin sockets `clients` is None: `limits` has both together.

    `broken` is why nobody reaches it.
    """

    name: str
    address: str
    transport: str
    authentication: str
    readonly: bool
    clients: int | None
    broken: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A user or an address, and the places that it has."""

    holder: str
    clients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many there are, and how many there may be."""

    clients: int
    max_clients: int
    unauthenticated: int
    max_unauthenticated: int
    admin_clients: int
    max_admin_clients: int
    descriptor_room: int
    waiting: int = 0
    silent: int = 0
    most_places: tuple[Holder, ...] = ()
    over_rate: tuple[str, ...] = ()  # who was refused within a minute
    over_logins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a daemon answered that was asked; `trouble` says why it did not."""

    answers: bool
    answered_ms: float | None
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Partings:
    """Of a daemon's connections whose clients are gone: those that are `now`, and since the start
    how many have ended in which way."""

    now: int = 0
    orderly: int = 0
    daemon_gone: int = 0
    overdue: int = 0
    displaced: int = 0
    cut_off: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A daemon behind; without `answer` it was not asked. Missing: it was there, and has gone."""

    daemon: str
    socket: str
    present: bool
    missing: bool = False
    sessions: int
    partings: Partings | None = None  # of a daemon that is older
    answer: Answer | None = field(default=None, metadata=_FLAT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate, of role "server" or "ca", or a revocation list, "crl", which has no key."""

    role: str
    file: str | None = None
    key: str | None = None
    subject: str
    expires_at: float | None
    days_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """How the latest one went."""

    at: float
    succeeded: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A way in that is not served, since when, and why."""

    way: str
    since: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something besides itself that the daemon needs is not there, and clients get errors."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """What has moved since the start, in all sessions together."""

    threads: int
    sessions: int
    calls: int
    bytes_up: int
    bytes_down: int
    errors: int
    tls_in_kernel: int
    own_errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One that has handed over to this one, and serves clients that could not move."""

    pid: int
    clients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLosses:
    """Lines that were not written."""

    dropped: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Nobody new is let in, since when, and who is `left`; of those some are still negotiating."""

    since: float
    left: int
    negotiating: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What came of `proxyd drain`: whether it has changed anything, and how it is now."""

    changed: bool
    drain: Drain | None = None  # there is none any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What the daemon was started from, beside what is installed now.

    `outdated` says what is different, a text each; `installed` is the release that is there now, ""
    where none is; `remedy` is the command that makes the daemon what is installed.
    """

    outdated: tuple[str, ...]
    installed: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Who may do what: the file in force, and how many lines of it decide."""

    file: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The daemon, as it is right now."""

    format: int = 0  # of a daemon that is older than the key
    version: str
    pid: int
    state: str
    drain: Drain | None = None
    program: Program | None = None  # of a daemon that is older
    started_at: float
    uptime_s: float
    configuration: str
    idle_exit_s: int
    listeners: tuple[Listener, ...]
    limits: Limits
    backends: tuple[Backend, ...]
    certificates: tuple[Certificate, ...]
    last_reload: Reload | None
    rules: Rules | None = None  # where there are some
    troubles: tuple[Trouble, ...] = ()
    faults: tuple[Fault, ...] = ()
    relay: Relay
    log: LogLosses
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """Process `before` has handed over to `pid`, with so many sessions; others stay with it."""

    before: int
    pid: int
    moved: int
    staying: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisedSession:
    """One that is not as the rules in force have it. `change`: refused, changed, or moved, for one
    that another process serves and that is to do something else."""

    id: int
    who: str
    uri: str
    change: str
    before: str
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What the rules say of the open sessions; `done` is whether that was made so.

    `sessions` are the first of those that are not as they should be, `count` is how many there are.
    """

    reloaded: str
    rules: int | None  # None where there are none
    open: int
    count: int
    done: bool
    sessions: tuple[RevisedSession, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """The rule by which a session was opened."""

    line: int
    text: str
    may: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One client, from accept to its last byte."""

    id: int
    listener: str
    transport: str
    address: str
    who: str
    identity: ClientIdentity
    tls: TlsTerms | None
    authenticated: bool
    authentication: str = ""
    readonly: bool
    state: str
    uri: str
    backend: str
    connected_at: float
    age_s: float
    idle_s: float
    calls: int
    errors: int
    bytes_up: int
    bytes_down: int
    timed_calls: int = 0
    timed_s: float = 0.0
    process: int | None = None  # that serves it, where it is not the daemon's present one
    rule: Law | None = None  # where there are rules
    denied_calls: int = 0  # that its rule does not allow


def written(document: Any) -> Any:
    """Return it as values that JSON has."""
    if isinstance(document, tuple):
        return [written(each) for each in document]
    if not is_dataclass(document):
        return document
    found: dict[str, Any] = {}
    for name, left_out, is_flat in _plan(document.__class__):
        value = getattr(document, name)
        if value is None and left_out:
            continue
        if is_flat:
            found |= written(value)
        else:
            found[name] = value if type(value) in _SCALARS else written(value)
    return found


def read(kind: type[_Document], found: Any) -> _Document:
    """Return what JSON values stand for. Raises Unreadable."""
    document: _Document = _object(kind, found, "")
    if isinstance(document, Status) and document.format > FORMAT:
        raise Unreadable(
            f"format {document.format} is newer than what is known here, {FORMAT}: use the command"
            " of the daemon's own version"
        )
    return document


_SCALARS: Final = frozenset({str, int, float, bool, NoneType})
_EXPECTED: Final = {str: "a string", int: "a whole number", float: "a number", bool: "a boolean"}


@cache
def _plan(kind: Any) -> list[tuple[str, bool, bool]]:
    """Each field: its name, whether None is left out, whether it is flat."""
    return [(each.name, each.default is None, "flat" in each.metadata) for each in fields(kind)]


@cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _object(kind: Any, found: Any, where: str) -> Any:
    if not isinstance(found, dict):
        raise Unreadable(f"{where or 'all of it'}: an object was expected")
    values = {}
    for each in fields(kind):
        wanted, name = _types(kind)[each.name], f"{where}.{each.name}".lstrip(".")
        if "flat" in each.metadata:
            inner = get_args(wanted)[0]
            if any(key.name in found for key in fields(inner)):
                values[each.name] = _object(inner, found, where)
        elif each.name in found:
            values[each.name] = _value(wanted, found[each.name], name)
        elif each.default is MISSING:
            raise Unreadable(f"{name}: it is not there")
    return kind(**values)


def _value(wanted: Any, found: Any, where: str) -> Any:
    if isinstance(wanted, UnionType):
        return None if found is None else _value(get_args(wanted)[0], found, where)
    if get_origin(wanted) is tuple:
        if not isinstance(found, list):
            raise Unreadable(f"{where}: a list was expected")
        return tuple(
            _value(get_args(wanted)[0], each, f"{where}[{at}]") for at, each in enumerate(found)
        )
    if is_dataclass(wanted):
        return _object(wanted, found, where)
    if type(found) is wanted and (wanted is not float or math.isfinite(found)):
        return found
    if wanted is float and type(found) is int:
        return found
    raise Unreadable(f"{where}: {_EXPECTED[wanted]} was expected")
