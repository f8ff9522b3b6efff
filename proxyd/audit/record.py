"""What a record is, and how it is written: as a line of JSON, in the journal's fields, for syslog.

Every value that a peer chose goes through escape.py, and each text has a length of its own, so that
a record is at most LONGEST bytes. Nothing that a call carries gets here but the name and the uuid
of the object that it is about. docs/audit.md has the fields; a test holds it to FIELDS.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from json.encoder import encode_basestring as _quoted
from typing import Final, NamedTuple, TypeAlias

from proxyd.audit.escape import plain
from proxyd.log.journal import encoded_field
from proxyd.relay.trail import Call, Outcome
from proxyd.wire.names import procedure_name
from proxyd.wire.objects import Named

Value: TypeAlias = str | int | float | bool

# What every syslog daemon takes: rsyslog's default limit for one message.
LONGEST: Final = 8192

# Of every record in the journal: `journalctl MESSAGE_ID=…` shows them and nothing else.
MESSAGE_ID: Final = "5d0f9c2e6a4b4c8f9b1e7a3d2c6f8e10"

_PREFIX: Final = "PROXYD_"
_FACILITY_AUTHPRIV: Final = 10
_NOTICE: Final = 5
_INFORMATIONAL: Final = 6
_PRIORITY: Final = _FACILITY_AUTHPRIV * 8
_NS: Final = 1_000_000_000


class Event(StrEnum):
    """What has happened."""

    STARTED = "started"
    STOPPED = "stopped"
    OPENED = "session_opened"
    DENIED = "session_denied"
    ENDED = "session_ended"
    KICKED = "session_kicked"
    CALL = "call"
    RELOAD = "reload"
    UPGRADE = "upgrade"
    LIMITS = "limits_changed"
    DRAIN = "drain"
    PASSWORD = "password_set"  # noqa: S105 (no password)
    NO_PASSWORD = "password_removed"  # noqa: S105
    ADMINISTRATOR = "administrator"
    GAP = "gap"


@dataclass(frozen=True, slots=True)
class Field:
    """`longest` is in bytes of UTF-8, and 0 for what is no text."""

    kind: str
    meaning: str
    longest: int = 0


def _text(longest: int, meaning: str) -> Field:
    return Field("string", meaning, longest)


def _number(meaning: str) -> Field:
    return Field("integer", meaning)


FIELDS: Final[Mapping[str, Field]] = {
    "time": _text(32, "when it happened; of a call, when it went on to the daemon. UTC"),
    "event": _text(32, "what happened, see below"),
    "session": _number("the client's number, as in the log and in `proxyd clients`"),
    "listener": _text(64, "where it came in"),
    "address": _text(128, "of the network it came from: `HOST:PORT`"),
    "uid": _number("user id of a client of this host"),
    "user": _text(128, "and that user's name"),
    "pid": _number("its process"),
    "sasl_user": _text(256, "who it is by SASL"),
    "certificate": _text(768, "subject of its certificate"),
    "readonly": Field("boolean", "whether it may only look"),
    "uri": _text(512, "what it opened"),
    "daemon": _text(64, "the daemon behind"),
    "rule": _number("the line of the rules file that decides of the session"),
    "may": _text(32, "and what it gives: `read`, `operate`, `write`, or the name of a set"),
    "procedure": _text(
        64, "the call, by libvirt's name, or `PROGRAM/NUMBER` where it is not known"
    ),
    "serial": _number("the call's number in its session"),
    "object": _text(32, "what kind of object the call is about: `domain`, `network`, …"),
    "name": _text(512, "its name, as the client said it"),
    "uuid": _text(36, "its uuid, likewise, by which daemons find guests, networks and pools"),
    "parent": _text(512, "a volume's pool, a snapshot's or checkpoint's guest, a port's network"),
    "parent_uuid": _text(36, "and its uuid"),
    "outcome": _text(
        16,
        "`ok`, `error` (the daemon or proxyd says so), `refused` (it never got to"
        " the daemon) or `unanswered` (the connection ended first)",
    ),
    "seconds": Field("number", "what the call took, or how long the session lasted"),
    "calls": _number("calls of the session"),
    "reason": _text(512, "why, in words for people"),
    "by_uid": _number("the administrator's user id"),
    "by_user": _text(128, "and name"),
    "by_pid": _number("and process"),
    "login_uid": _number("the user id with which the administrator has logged in, before sudo"),
    "successor": _number("the process that has taken over"),
    "target": _text(128, "whose password it is"),
    "max_clients": _number("the new limit"),
    "max_anonymous_clients": _number("the new limit"),
    "lost": _number("records that could not be written since the one before"),
}


@dataclass(slots=True, eq=False)
class Who:
    """A session, as each of its records names it. Values are escaped when the first is written."""

    values: Mapping[str, Value | None]
    _plain: dict[str, Value] | None = field(default=None, init=False)
    _members: str | None = field(default=None, init=False)

    @property
    def members(self) -> str:
        """Of a JSON object, each behind a comma."""
        if self._members is None:
            self._members = "".join(_members(self.plain.items()))
        return self._members

    @property
    def plain(self) -> Mapping[str, Value]:
        if self._plain is None:
            self._plain = dict(_plain(self.values))
        return self._plain


NOBODY: Final = Who({})


@dataclass(frozen=True, slots=True)
class Record:
    """`at` is in seconds since the epoch; a value that is None is not there."""

    at: float
    event: Event
    who: Who = NOBODY
    values: Mapping[str, Value | None] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Value]:
        """All of them, harmless."""
        return _fields(self)

    @property
    def members(self) -> str:
        """Those of its own, of a JSON object, each behind a comma."""
        return "".join(_members(_plain(self.values)))


class CallRecord(NamedTuple):
    """The same of a call, of which there are most: what many have alike is put together once."""

    at: float
    call: Call

    @property
    def event(self) -> Event:
        return Event.CALL

    @property
    def who(self) -> Who:
        return self.call.who if isinstance(self.call.who, Who) else NOBODY

    @property
    def values(self) -> Mapping[str, Value | None]:
        call = self.call
        return {
            "procedure": procedure_name(call.program, call.procedure),
            "serial": call.serial,
            **({} if call.about is None else dict(_about(call.about))),
            "outcome": call.outcome.value,
            "seconds": self.seconds,
        }

    @property
    def seconds(self) -> float:
        return (self.call.ended_ns - self.call.began_ns) / _NS

    @property
    def fields(self) -> dict[str, Value]:
        return _fields(self)

    @property
    def members(self) -> str:
        _, program, procedure, serial, about, _, _, outcome = self.call
        return (
            f'{_procedure_member(program, procedure)},"serial":{serial}'
            f'{"" if about is None else _about_members(about)},"outcome":"{outcome.value}"'
            f',"seconds":{self.seconds!r}'
        )


AnyRecord: TypeAlias = Record | CallRecord


def record_of(call: Call, *, now: float, now_ns: int) -> CallRecord:
    """The clocks are CLOCK_REALTIME and CLOCK_MONOTONIC at one moment."""
    return CallRecord(now - (now_ns - call.began_ns) / _NS, call)


def _fields(record: AnyRecord) -> dict[str, Value]:
    found: dict[str, Value] = {"time": _when(record.at), "event": record.event.value}
    found.update(record.who.plain)
    found.update(_plain(record.values))
    return found


def _when(at: float) -> str:
    microseconds = round(at * 1_000_000)
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}+00:00"


@lru_cache(maxsize=4)  # records come in the order of their time, nearly
def _second(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=512)
def _procedure_member(program: int, procedure: int) -> str:
    return "".join(_members(_plain({"procedure": procedure_name(program, procedure)})))


@lru_cache(maxsize=256)  # at most some 1.5 MB, whatever names are chosen
def _about_members(about: Named) -> str:
    return "".join(_members(_plain(dict(_about(about)))))


def _about(about: Named) -> Iterator[tuple[str, Value]]:
    yield "object", about.kind
    for part, name in (("name", about.name), ("parent", about.parent)):
        if name:
            yield part, name.decode("utf-8", "surrogateescape")
    for part, number in (("uuid", about.uuid), ("parent_uuid", about.parent_uuid)):
        if number:
            yield part, str(uuid.UUID(bytes=number))


def _plain(values: Mapping[str, Value | None]) -> Iterator[tuple[str, Value]]:
    for name, value in values.items():
        if isinstance(value, str):
            yield name, plain(value, FIELDS[name].longest)
        elif value is not None:
            yield name, value


def json_line(record: AnyRecord) -> bytes:
    """With the line feed.

    Put together by hand, with what many records have alike made once: 3.5 µs a record of a call, in
    a thread that holds up the relay's meanwhile, where json's encoder takes 8.5.
    """
    head = f'{{"time":"{_when(record.at)}","event":"{record.event.value}"'
    return f"{head}{record.who.members}{record.members}}}\n".encode()


def _members(values: Iterable[tuple[str, Value]]) -> Iterator[str]:
    for name, value in values:
        if isinstance(value, str):
            yield f',"{name}":{_quoted(value)}'
        elif isinstance(value, bool):
            yield f',"{name}":{"true" if value else "false"}'
        else:
            yield f',"{name}":{value!r}'


def journal_datagram(record: AnyRecord) -> bytes:
    """A field for each value, `PROXYD_NAME`, and a message for people."""
    fields = record.fields
    head = {
        "MESSAGE": message(fields),
        "MESSAGE_ID": MESSAGE_ID,
        "PRIORITY": str(_severity(record)),
        "SYSLOG_FACILITY": str(_FACILITY_AUTHPRIV),
        "SYSLOG_IDENTIFIER": "proxyd",
    }
    parts = [encoded_field(name, text) for name, text in head.items()]
    parts += [encoded_field(_PREFIX + name.upper(), _word(each)) for name, each in fields.items()]
    return b"".join(parts)


def from_journal(entry: Mapping[str, object]) -> dict[str, Value]:
    """The fields of an entry as `journalctl -o json` prints it."""
    found: dict[str, Value] = {}
    for name, about in FIELDS.items():
        text = entry.get(_PREFIX + name.upper())
        if not isinstance(text, str):
            continue
        match about.kind:
            case "integer":
                found[name] = int(text)
            case "number":
                found[name] = float(text)
            case "boolean":
                found[name] = text == "true"
            case _:
                found[name] = text
    return found


def syslog_priority(record: AnyRecord) -> int:
    """Facility authpriv, and how much it matters."""
    return _PRIORITY + _severity(record)


def message(fields: Mapping[str, Value]) -> str:
    """The same in words."""
    return " ".join(part for part in (str(fields["event"]), *_parts(fields)) if part)


def who_in_words(fields: Mapping[str, Value]) -> str:
    """Who has done it: whatever is known, the best proof first."""
    for name in ("sasl_user", "certificate", "user", "by_user"):
        if fields.get(name):
            return str(fields[name])
    for name in ("uid", "by_uid"):
        if name in fields:
            return f"uid {fields[name]}"
    return str(fields.get("address", ""))


def object_in_words(fields: Mapping[str, Value]) -> str:
    """What a record is about: `pool/volume`, `guest`."""
    name = str(fields.get("name") or fields.get("uuid", ""))
    parent = fields.get("parent")
    return f"{parent}/{name}" if parent else name or str(fields.get("target", ""))


def _parts(fields: Mapping[str, Value]) -> Iterator[str]:
    yield str(fields.get("procedure", ""))
    yield object_in_words(fields)
    yield str(fields.get("outcome", ""))
    who = who_in_words(fields)
    if who:
        yield f"by {who}"
    if "session" in fields:
        yield f"(session {fields['session']})"
    if "reason" in fields:
        yield f": {fields['reason']}"


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _severity(record: AnyRecord) -> int:
    refused = record.values.get("outcome") == Outcome.REFUSED
    grave = record.event in (Event.DENIED, Event.KICKED, Event.GAP) or refused
    return _NOTICE if grave else _INFORMATIONAL
