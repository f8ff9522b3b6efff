"""The rows of the table: what is measured, what the C daemon takes, what is to be reached."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

NONE: Final = "–"


@dataclass(frozen=True, slots=True)
class Goal:
    """What the median is held against. Absolute ones are today's figures, to be kept."""

    limit: float
    least: bool = False  # a rate, which may be higher

    def is_reached(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. `measurement` is the name of what takes it; a unit of "" is a ratio."""

    name: str
    measurement: str
    title: str
    unit: str = ""
    c_daemon: str = NONE
    goal: Goal | None = None
    aim: str = ""  # in words, where there is no goal in numbers


def _at_most(limit: float) -> Goal:
    return Goal(limit)


def _at_least(limit: float) -> Goal:
    return Goal(limit, least=True)


ROWS: Final = (
    Row(
        name="direct",
        measurement="calls",
        title="a small call straight to the daemon, median: how fast the machine was",
        unit="µs",
        c_daemon="86 µs",
    ),
    Row(
        name="added-unix",
        measurement="calls",
        title="added median of a small call, UNIX",
        unit="µs",
        c_daemon="76 µs",
    ),
    Row(
        name="added-tls",
        measurement="calls",
        title="added median of a small call, TLS",
        unit="µs",
        c_daemon="109 µs",
    ),
    Row(
        name="limit-unix-warm",
        measurement="limit",
        title="the same over UNIX ÷ what a bare relay in C adds, warm",
        goal=_at_most(1.2),
    ),
    Row(
        name="limit-unix-cold",
        measurement="limit",
        title="… cold",
        goal=_at_most(1.4),
    ),
    Row(
        name="limit-tls-warm",
        measurement="limit",
        title="the same over TLS ÷ what a bare TLS relay in C adds, warm",
        goal=_at_most(1.5),
    ),
    Row(
        name="limit-tls-cold",
        measurement="limit",
        title="… cold",
        goal=_at_most(1.5),
    ),
    Row(
        name="clients-rate",
        measurement="clients",
        title="calls/s with 16 clients ÷ direct",
        c_daemon="0.33",
        goal=_at_least(0.9),
    ),
    Row(
        name="clients-cpu",
        measurement="clients",
        title="CPU for a small call, 16 clients",
        unit="µs",
        c_daemon="94 µs",
        goal=_at_most(14),
    ),
    Row(
        name="sessions-rate",
        measurement="sessions",
        title="new UNIX sessions/s ÷ direct",
        c_daemon="0.25",
        goal=_at_least(0.6),
    ),
    Row(
        name="sessions-cpu",
        measurement="sessions",
        title="CPU for a new UNIX session",
        unit="ms",
        c_daemon="0.70 ms",
    ),
    Row(
        name="tls-sessions-rate",
        measurement="tls-sessions",
        title="new TLS sessions (RSA-2048, mutual)",
        unit="/s",
        c_daemon="256/s",
    ),
    Row(
        name="tls-sessions-cpu",
        measurement="tls-sessions",
        title="CPU for a new TLS session",
        unit="ms",
        c_daemon="2.4 ms",
        goal=_at_most(1.7),
    ),
    Row(
        name="uploads-tls",
        measurement="uploads",
        title="4 uploads at once over TLS ÷ 1",
        c_daemon="1.4",
        aim="as the cores allow",
    ),
    Row(
        name="uploads-tls-rate",
        measurement="uploads",
        title="… the 4 together",
        unit="MiB/s",
        c_daemon="426 MiB/s",
    ),
    Row(
        name="uploads-gssapi",
        measurement="uploads",
        title="4 uploads at once over Kerberos ÷ 1",
        aim="as the cores allow",
    ),
    Row(
        name="uploads-gssapi-rate",
        measurement="uploads",
        title="… the 4 together",
        unit="MiB/s",
    ),
    Row(
        name="beside",
        measurement="beside",
        title="p99 of a UNIX call beside 1 GiB over Kerberos, minus alone",
        unit="ms",
        goal=_at_most(1.0),
    ),
    Row(
        name="beside-direct",
        measurement="beside",
        title="… of the same calls straight to their daemon",
        unit="ms",
    ),
    Row(
        name="resident-tls",
        measurement="start",
        title="resident, idle, TLS on",
        unit="MiB",
        c_daemon="31 MiB",
        goal=_at_most(40),
    ),
    Row(
        name="ready",
        measurement="start",
        title="from exec to READY, TLS on",
        unit="s",
        goal=_at_most(0.2),
    ),
    Row(
        name="idle-tls",
        measurement="start",
        title="an idle TLS session",
        unit="KiB",
        c_daemon="21 KiB",
        goal=_at_most(21),
    ),
    Row(
        name="idle-unix",
        measurement="idle",
        title="an idle UNIX session",
        unit="KiB",
        c_daemon="6.5 KiB",
        goal=_at_most(2.4),
    ),
    Row(
        name="idle-descriptors",
        measurement="idle",
        title="… its descriptors",
        c_daemon="3",
        goal=_at_most(2),
    ),
    Row(
        name="idle-added",
        measurement="idle",
        title="added median of a small call beside 1,000 idle sessions",
        unit="µs",
        c_daemon="1,509 µs",
        goal=_at_most(14),
    ),
    Row(
        name="gib-unix",
        measurement="bulk",
        title="CPU for 1 GiB, UNIX",
        unit="s",
        c_daemon="0.6 to 1.2 s",
        goal=_at_most(0.3),
    ),
    Row(
        name="gib-tls",
        measurement="bulk",
        title="CPU for 1 GiB, TLS",
        unit="s",
        c_daemon="1.1 to 1.6 s",
        goal=_at_most(0.8),
    ),
    Row(
        name="gib-gssapi",
        measurement="bulk",
        title="CPU for 1 GiB, Kerberos",
        unit="s",
        goal=_at_most(5.7),
    ),
)
MEASUREMENTS: Final = tuple(dict.fromkeys(row.measurement for row in ROWS))


def cells(row: Row, rounds: Sequence[float]) -> tuple[str, str, str]:
    """Of the table: proxyd's figure, the goal, and whether that is reached."""
    number = _digits([*rounds, *([row.goal.limit] if row.goal else [])])
    goal = row.aim or NONE
    if row.goal is not None:
        goal = f"{'≥' if row.goal.least else '≤'} {with_unit(f'{row.goal.limit:g}', row.unit)}"
    if not rounds:
        return NONE, goal, NONE
    middle = median(rounds)
    told = with_unit(number(middle), row.unit)
    if len(rounds) > 1:
        told += f" ({number(min(rounds))} to {number(max(rounds))})"
    if row.goal is None:
        return told, goal, NONE
    # As it is shown: nobody is to see 1.20 miss a goal of 1.2.
    shown = float(number(middle).replace(",", ""))
    return told, goal, "yes" if row.goal.is_reached(shown) else "no"


def with_unit(number: str, unit: str) -> str:
    return f"{number}{unit}" if unit.startswith("/") else f"{number} {unit}".rstrip()


def _digits(values: Sequence[float]) -> Callable[[float], str]:
    """So many behind the point that three of the largest are told, or two below 1."""
    largest = max(map(abs, values), default=0.0)
    behind = 2 if largest < 10 else 1 if largest < 100 else 0
    return lambda value: f"{value:,.{behind}f}"
