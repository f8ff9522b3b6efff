"""The options at the end of a rule: `sessions=5 calls=200/s idle=1h until=2026-12-31`."""

import datetime as dt
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from proxyd.rules.field import Field, Place, Unclear
from proxyd.rules.nearest import found, unknown

_MOST: Final = 1_000_000  # sessions, and calls
_LONGEST_IDLE_S: Final = 366 * 86400
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_RATE: Final = re.compile(r"([0-9]{1,9})/([a-z]+)")
_SPAN: Final = re.compile(r"([0-9]{1,9})([a-z]+)")
_PER_S: Final = {"s": 1, "min": 60}
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?(?:Z|[+-][0-9]{2}:[0-9]{2})?"
)
_MEANT: Final = {
    "max": "sessions",
    "connections": "sessions",
    "clients": "sessions",
    "rate": "calls",
    "timeout": "idle",
    "expires": "until",
    "before": "until",
    "valid": "until",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the options of one rule say, as `Grant` has it."""

    sessions: int = 0
    calls_per_s: float = 0.0
    idle_s: int = 0
    until_s: float = 0.0


def limits_of(fields: Iterable[Field]) -> Limits:
    """Raises Unclear. Times without a zone are this host's."""
    limits, seen = Limits(), set[str]()
    for field in fields:
        name, equals, value = _parted(field)
        if not equals or name not in _READERS:
            raise Unclear(
                field.place,
                "an option (sessions=5, calls=200/s, idle=1h or until=2026-12-31)"
                + unknown(name, _READERS, _MEANT),
            )
        if name in seen:
            raise Unclear(field.place, f"one {name}= in a rule, found another", key=name)
        seen.add(name)
        limits = _READERS[name](limits, value, field.place)
    return limits


def _parted(field: Field) -> tuple[str, str, str]:
    if len(field.pieces) > 1:
        joint = field.pieces[1]
        raise Unclear(joint.place, f'a blank between options, found "{joint.joint}"', key="options")
    return field.word.partition("=")


def _sessions(limits: Limits, value: str, place: Place) -> Limits:
    number = int(value) if _NUMBER.fullmatch(value) else 0
    if not 1 <= number <= _MOST:
        raise Unclear(
            place, f"sessions= a whole number from 1 to {_MOST}{found(value)}", key="sessions"
        )
    return replace(limits, sessions=number)


def _calls(limits: Limits, value: str, place: Place) -> Limits:
    rate = _RATE.fullmatch(value)
    number = int(rate[1]) if rate else 0
    if rate is None or rate[2] not in _PER_S or not 1 <= number <= _MOST:
        guess = f"calls={value}/s" if _NUMBER.fullmatch(value) else ""
        raise Unclear(
            place,
            f"calls= a whole number from 1 to {_MOST} with /s or /min{found(value, guess)}",
            key="calls",
        )
    return replace(limits, calls_per_s=number / _PER_S[rate[2]])


def _idle(limits: Limits, value: str, place: Place) -> Limits:
    span = _SPAN.fullmatch(value)
    idle_s = int(span[1]) * _SECONDS.get(span[2], 0) if span else 0
    if not 1 <= idle_s <= _LONGEST_IDLE_S:
        guess = ""
        if span and span[2] in {"m", "sec", "second", "seconds", "minutes", "hours", "days"}:
            guess = f"idle={span[1]}{'min' if span[2][0] == 'm' else span[2][0]}"
        raise Unclear(
            place,
            f"idle= a number with s, min, h or d, at most 366d{found(value, guess)}",
            key="idle",
        )
    return replace(limits, idle_s=idle_s)


def _until(limits: Limits, value: str, place: Place) -> Limits:
    try:
        until_s = moment_of(value, end_of_day=True)
    except ValueError as error:
        raise Unclear(place, f"until= {error}{found(value)}", key="until") from error
    return replace(limits, until_s=until_s)


def moment_of(text: str, *, end_of_day: bool = False) -> float:
    """Seconds of CLOCK_REALTIME at 2026-12-31, or 2026-12-31T18:00 with or without a zone.

    A date alone is its first second, or the one behind its last. Raises ValueError, whose text says
    what is expected.
    """
    expected = "a date as 2026-12-31, or with a time as 2026-12-31T18:00, 18:00Z or 18:00+01:00"
    if not _DAY.fullmatch(text) and not _MOMENT.fullmatch(text):
        raise ValueError(expected)
    try:
        moment = dt.datetime.fromisoformat(text)
        if end_of_day and _DAY.fullmatch(text):
            moment += dt.timedelta(days=1)
        moment_s = moment.timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{expected}, of a day that there is") from None
    if moment_s <= 0:
        raise ValueError(f"{expected}, behind 1970")
    return moment_s


_READERS: Final[dict[str, Callable[[Limits, str, Place], Limits]]] = {
    "sessions": _sessions,
    "calls": _calls,
    "idle": _idle,
    "until": _until,
}
