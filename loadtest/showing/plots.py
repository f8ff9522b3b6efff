"""What there is to be seen in runs: lines over time, and latency by percentile."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ..results import Interval, TargetResult
from .runs import Series
from .words import brief_duration, brief_number, duration, number

MOST_POINTS: Final = 300  # of a line: about one for two pixels


class Kind(StrEnum):
    PERCENTILES = "percentiles"
    LATENCY = "latency"
    THROUGHPUT = "throughput"
    ERRORS = "errors"


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float
    told: str  # about it, in words


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    pieces: list[list[Point]]  # apart where nothing was answered
    look: int | None  # which colour, dashes and mark; None: what is no series of its own
    faint: bool = False

    @property
    def points(self) -> list[Point]:
        return [point for piece in self.pieces for point in piece]


@dataclass(frozen=True, slots=True)
class Plot:
    kind: Kind
    title: str
    summary: str  # the same in words, for who cannot see it
    x_title: str
    y_title: str
    end: float  # of the x axis: seconds, or a percentage
    shown: Callable[[float], str]  # a value of the y axis
    least: float  # where that ends if there is nothing to show
    lines: list[Line] = field(default_factory=list)
    remark: str = ""


def plot_of(kind: Kind, series: Sequence[Series]) -> Plot:
    return _MADE_BY[kind](series)


def _percentiles(series: Sequence[Series]) -> Plot:
    lines = []
    for look, one in enumerate(series):
        points = [
            Point(level.percent, level.value, f"{level.percent:.6g} %: {duration(level.value)}")
            # The last level is 100, and infinitely far; the one before has the same value.
            for level in one.target.calls.spectrum()[:-1]
        ]
        lines.append(Line(one.name, [points] if points else [], look))
    count = max((one.target.calls.count for one in series), default=0)
    return Plot(
        Kind.PERCENTILES,
        "Latency by percentile",
        _told(series, _latency_in_words),
        "calls at least as fast",
        "latency",
        # As far as one call in so many; two nines at least.
        100 - 100 / max(count, 100),
        brief_duration,
        1e6,
        lines,
    )


def _latency(series: Sequence[Series]) -> Plot:
    lines = []
    for look, one in enumerate(series):
        typical = _pieces(one, lambda part: _latency_point(part, part.p50_ns))
        slow = _pieces(one, lambda part: _latency_point(part, part.p99_ns))
        lines += [Line(f"{one.name} p50", typical, look, faint=True), Line(one.name, slow, look)]
    return Plot(
        Kind.LATENCY,
        "Latency over time",
        _told(series, _latency_in_words),
        "time",
        "latency: p99 thick, p50 thin",
        _end(series),
        brief_duration,
        1e6,
        lines,
        _remark(series),
    )


def _throughput(series: Sequence[Series]) -> Plot:
    lines = _asked(series)
    lines += [Line(one.name, _pieces(one, _rate_point), look) for look, one in enumerate(series)]
    return Plot(
        Kind.THROUGHPUT,
        "Throughput over time",
        _told(series, lambda target: f"{target.calls.count} calls in {target.elapsed_s:g} s"),
        "time",
        "calls per second",
        _end(series),
        brief_number,
        1,
        lines,
        _remark(series),
    )


def _errors(series: Sequence[Series]) -> Plot:
    lines = [Line(one.name, _pieces(one, _error_point), look) for look, one in enumerate(series)]
    return Plot(
        Kind.ERRORS,
        "Errors over time",
        _told(series, lambda target: f"{sum(target.errors.values())} errors"),
        "time",
        "errors per second",
        _end(series),
        brief_number,
        1,
        lines,
        _remark(series),
    )


_MADE_BY: Final[dict[Kind, Callable[[Sequence[Series]], Plot]]] = {
    Kind.PERCENTILES: _percentiles,
    Kind.LATENCY: _latency,
    Kind.THROUGHPUT: _throughput,
    Kind.ERRORS: _errors,
}


def _asked(series: Sequence[Series]) -> list[Line]:
    """What was asked for, once for all who were asked the same."""
    lines: list[Line] = []
    for one in series:
        made = Line("asked for", _pieces(one, _asked_point), None, faint=True)
        if made.points and all(_places(made) != _places(line) for line in lines):
            lines.append(made)
    return lines


def _places(line: Line) -> list[tuple[int, int]]:
    return [(round(point.x), round(point.y)) for point in line.points]


def _pieces(series: Series, point_of: Callable[[Interval], Point | None]) -> list[list[Point]]:
    """A target's intervals as points, with a gap where there is none."""
    pieces: list[list[Point]] = [[]]
    for part in _parts(series.target.intervals):
        if (point := point_of(_merged(part))) is not None:
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _latency_point(part: Interval, nanoseconds: int | None) -> Point | None:
    if nanoseconds is None:
        return None
    told = f"p50 {duration(part.p50_ns)}, p99 {duration(part.p99_ns)}, max {duration(part.max_ns)}"
    return Point(_middle(part), nanoseconds, told)


def _rate_point(part: Interval) -> Point | None:
    if part.length_s <= 0:
        return None
    rate = part.calls / part.length_s
    asked = "" if part.rate is None else f" of {number(part.rate)} asked"
    return Point(_middle(part), rate, f"{number(rate)}/s{asked}")


def _asked_point(part: Interval) -> Point | None:
    return None if part.rate is None else Point(_middle(part), part.rate, f"{number(part.rate)}/s")


def _error_point(part: Interval) -> Point | None:
    if part.length_s <= 0:
        return None
    told = ", ".join(f"{name}: {count}" for name, count in sorted(part.errors.items()))
    return Point(_middle(part), sum(part.errors.values()) / part.length_s, told or "none")


def _parts(intervals: Sequence[Interval]) -> Iterator[Sequence[Interval]]:
    """At most MOST_POINTS of them, neighbours together."""
    beside = _beside(len(intervals))
    for first in range(0, len(intervals), beside):
        yield intervals[first : first + beside]


def _beside(count: int) -> int:
    return max(1, -(-count // MOST_POINTS))


def _merged(part: Sequence[Interval]) -> Interval:
    """Intervals as one: the worst p99, and of the p50 the middle one. Both are approximations."""
    if len(part) == 1:
        return part[0]
    errors: dict[str, int] = {}
    for one in part:
        for name, count in one.errors.items():
            errors[name] = errors.get(name, 0) + count
    length_s = sum(one.length_s for one in part)
    rates = [one.rate * one.length_s for one in part if one.rate is not None]
    typical = sorted(one.p50_ns for one in part if one.p50_ns is not None)
    return Interval(
        begins_s=part[0].begins_s,
        length_s=length_s,
        rate=sum(rates) / length_s if rates and length_s > 0 else None,
        calls=sum(one.calls for one in part),
        p50_ns=typical[len(typical) // 2] if typical else None,
        p99_ns=max((one.p99_ns for one in part if one.p99_ns is not None), default=None),
        max_ns=max((one.max_ns for one in part if one.max_ns is not None), default=None),
        errors=errors,
    )


def _middle(interval: Interval) -> float:
    return interval.begins_s + interval.length_s / 2


def _end(series: Sequence[Series]) -> float:
    ends = (part.begins_s + part.length_s for one in series for part in one.target.intervals)
    return max(ends, default=0.0)


def _remark(series: Sequence[Series]) -> str:
    merged = max((_beside(len(one.target.intervals)) for one in series), default=1)
    if merged == 1:
        return ""
    return f"Up to {merged} intervals in a point: of p99 the highest, of p50 the middle one."


def _told(series: Sequence[Series], say: Callable[[TargetResult], str]) -> str:
    return "; ".join(f"{one.name}: {say(one.target)}" for one in series)


def _latency_in_words(target: TargetResult) -> str:
    found = target.calls.percentiles((50.0, 99.0, 99.9))
    if not found:
        return "no calls"
    told = [f"p{percent:g} {duration(value)}" for percent, value in found.items()]
    return ", ".join([*told, f"max {duration(target.calls.highest)}"])
