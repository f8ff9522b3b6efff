"""Numbers that a run makes: latencies, costs, and ratios with their spread over the rounds."""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import compress
from statistics import median
from typing import Final

from hdrh.histogram import HdrHistogram

from .processes import Standing
from .targets import Target

HIGHEST_NS: Final = 60_000_000_000  # above any deadline a user would wait for; more counts as this
SIGNIFICANT_DIGITS: Final = 3
TICKS: Final = 5  # levels of a distribution on each half of what is left to 100 %; as wrk2 has it
MEDIAN: Final = 50.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """Values that a histogram does not tell apart, and how many there are."""

    lowest: int
    highest: int
    count: int

    @property
    def middle(self) -> int:
        return self.lowest + (self.highest - self.lowest + 1) // 2


@dataclass(frozen=True, slots=True)
class Level:
    """So many percent of the values, `count` of them, are at most `value`."""

    percent: float
    value: int
    count: int


class Latencies:
    """A histogram of nanoseconds with three significant digits."""

    def __init__(self, samples: Iterable[int] = ()) -> None:
        self._histogram = HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
        self.record(samples)

    def record(self, samples: Iterable[int]) -> None:
        # Bucket by bucket: of 10,000 samples that are 1.0 µs each, one by one they are 2.1.
        ordered = sorted(samples)
        begin, size, histogram = 0, len(ordered), self._histogram
        while begin < size:
            value = min(ordered[begin], HIGHEST_NS)
            largest = histogram.get_highest_equivalent_value(value)
            end = size if value == HIGHEST_NS else bisect_right(ordered, largest, begin)
            histogram.record_value(value, end - begin)
            begin = end

    def absorb(self, other: "Latencies") -> None:
        self._histogram.add(other._histogram)  # noqa: SLF001 (of the same class)

    @property
    def count(self) -> int:
        return int(self._histogram.get_total_count())

    @property
    def lowest(self) -> int:
        # Not the library's own: once an empty histogram was added to it, that one is 0.
        return self.percentile(0)

    @property
    def highest(self) -> int:
        return int(self._histogram.get_max_value())

    @property
    def mean(self) -> float:
        # Not the library's own, which steps through every empty bucket: 70 ms instead of 10.
        return sum(one.middle * one.count for one in self.buckets()) / max(1, self.count)

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return float(self._histogram.get_stddev())

    def percentile(self, percent: float) -> int:
        return int(self._histogram.get_value_at_percentile(percent))

    def percentiles(self, percents: Iterable[float]) -> dict[float, int]:
        """Several in one pass, lowest first; none at all if nothing was recorded."""
        if not self.count:
            return {}
        return dict(self._histogram.get_percentile_to_value_dict(list(percents)))

    def buckets(self) -> list["Bucket"]:
        """Those that hold something, lowest first."""
        histogram = self._histogram
        counts = histogram.counts[:]
        made = []
        # A few of 27,000, so it is not Python that steps over the others.
        for index in compress(range(len(counts)), counts):
            lowest = histogram.get_value_from_index(index)
            highest = histogram.get_highest_equivalent_value(lowest)
            made.append(Bucket(lowest, highest, counts[index]))
        return made

    def spectrum(self) -> list["Level"]:
        """HdrHistogram's percentile distribution: levels that come ever closer to 100."""
        return [
            Level(
                one.percentile_level_iterated_to,
                one.value_iterated_to,
                one.total_count_to_this_value,
            )
            for one in self._histogram.get_percentile_iterator(TICKS)
        ]

    def encoded(self) -> str:
        """All of it, compressed: HdrHistogram's own format (V2, zlib, base64)."""
        return bytes(self._histogram.encode()).decode("ascii")

    @classmethod
    def decoded(cls, text: str) -> "Latencies":
        """What `encoded` made; ValueError if it is nothing of the kind."""
        made = cls()
        try:
            made._histogram.decode_and_add(text)
        except Exception as error:  # noqa: BLE001 (zlib, struct, ctypes: all come through)
            raise ValueError(f"no histogram: {type(error).__name__}") from None
        return made


@dataclass(slots=True)
class Work:
    """What was done by one target while nothing was asked of any other, and its cost."""

    calls: int = 0  # or sessions, or transfers
    elapsed_ns: int = 0
    tool_cpu_ns: int = 0
    cpu_ns: dict[str, int] = field(default_factory=dict)

    def absorb(self, other: "Work") -> None:
        self.calls += other.calls
        self.elapsed_ns += other.elapsed_ns
        self.tool_cpu_ns += other.tool_cpu_ns
        for label, nanoseconds in other.cpu_ns.items():
            self.cpu_ns[label] = self.cpu_ns.get(label, 0) + nanoseconds

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls * 1e9 / self.elapsed_ns

    @property
    def tool_per_call_ns(self) -> float:
        return self.tool_cpu_ns / self.calls

    @property
    def tool_share(self) -> float:
        """Of one core's time."""
        return self.tool_cpu_ns / self.elapsed_ns

    def per_call_ns(self, label: str) -> float:
        return self.cpu_ns[label] / self.calls

    def share(self, label: str) -> float:
        """Of one core's time; above 1 for a process that is busy on several."""
        return self.cpu_ns[label] / self.elapsed_ns


@dataclass(slots=True)
class Round:
    """One target's part of one round."""

    latencies: Latencies = field(default_factory=Latencies)
    work: Work = field(default_factory=Work)
    rates: list[float] = field(default_factory=list)  # of each block or slice, in their order

    def add(self, work: Work) -> None:
        """One more block or slice."""
        self.work.absorb(work)
        self.rates.append(work.rate)

    @property
    def p50_ns(self) -> int:
        return self.latencies.percentile(MEDIAN)


@dataclass(slots=True)
class TargetFigures:
    """All that is known of one target at the end."""

    target: Target
    rounds: list[Round] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    cipher: str | None = None  # of its connections; None if they are plain

    @property
    def seconds(self) -> list[float]:
        """Of each round, per call, session or transfer."""
        return [one.work.elapsed_ns / one.work.calls / 1e9 for one in self.rounds]

    @property
    def all_cpu_ns(self) -> list[int]:
        """Of each round, what all processes used together; one under two labels counts once."""
        labels = {group.pids: group.label for group in self.target.groups}.values()
        return [sum(one.work.cpu_ns[label] for label in labels) for one in self.rounds]

    def combined(self) -> Round:
        """All rounds as if they had been one."""
        whole = Round()
        for one in self.rounds:
            whole.latencies.absorb(one.latencies)
            whole.work.absorb(one.work)
            whole.rates += one.rates
        return whole


@dataclass(frozen=True, slots=True)
class Figure:
    """A number over all rounds together, and in each."""

    value: float
    per_round: tuple[float, ...]

    @property
    def low(self) -> float:
        return min(self.per_round)

    @property
    def high(self) -> float:
        return max(self.per_round)


@dataclass(frozen=True, slots=True)
class Against:
    """A target beside the first one. None where the first one's number is zero."""

    p50_ratio: Figure | None
    added_p50_ns: Figure | None
    added_ratio: Figure | None
    rate_ratio: Figure | None


@dataclass(frozen=True, slots=True)
class TransferAgainst:
    """A target's transfers beside the first one's. None where that one's number is zero."""

    seconds_ratio: Figure | None
    added_s: Figure | None
    rate_ratio: Figure | None
    cpu_ratio: Figure | None  # of all processes together; None where none are known


def _pairwise(
    measure: Callable[[Round, Round], float], mine: TargetFigures, other: TargetFigures
) -> Figure | None:
    try:
        value = measure(mine.combined(), other.combined())
        pairs = zip(mine.rounds, other.rounds, strict=True)
        return Figure(value, tuple(measure(one, two) for one, two in pairs))
    except ZeroDivisionError:
        return None


def against(mine: TargetFigures, first: TargetFigures) -> Against:
    """Rounds are compared one by one: what disturbed both in one round cancels out."""
    return Against(
        _pairwise(lambda one, two: one.p50_ns / two.p50_ns, mine, first),
        added_p50(mine, first),
        _pairwise(lambda one, two: (one.p50_ns - two.p50_ns) / two.p50_ns, mine, first),
        _pairwise(_rate_ratio, mine, first),
    )


def added_p50(mine: TargetFigures, first: TargetFigures) -> Figure | None:
    """Nanoseconds."""
    return _pairwise(lambda one, two: one.p50_ns - two.p50_ns, mine, first)


def _rate_ratio(one: Round, two: Round) -> float:
    # Slice by slice, for the machine itself drifts: libvirtd compared with itself at 16
    # connections ran at 33,000 calls/s and 12 s later at 21,000, its neighbouring slices within
    # 5 %; and one burst of something else made the ratio of a round's sums 1.63.
    return median(mine / other for mine, other in zip(one.rates, two.rates, strict=True))


def transfer_against(mine: TargetFigures, first: TargetFigures) -> TransferAgainst:
    """Round by round, with the median of the rounds: a transfer that was disturbed is outvoted."""
    seconds = list(zip(mine.seconds, first.seconds, strict=True))
    cpu = list(zip(mine.all_cpu_ns, first.all_cpu_ns, strict=True))
    return TransferAgainst(
        median_figure(one / two for one, two in seconds),
        median_figure(one - two for one, two in seconds),
        median_figure(two / one for one, two in seconds),
        median_figure(one / two for one, two in cpu) if mine.target.groups else None,
    )


def median_figure(per_round: Iterable[float]) -> Figure | None:
    """None where something would be divided by zero."""
    try:
        numbers = tuple(per_round)
    except ZeroDivisionError:
        return None
    return Figure(median(numbers), numbers)


def cpu_ratio(figures: TargetFigures, label: str, other: str) -> Figure | None:
    """CPU per call of one group of a target's processes ÷ that of another."""
    return _pairwise(
        lambda one, two: one.work.per_call_ns(label) / two.work.per_call_ns(other),
        figures,
        figures,
    )
