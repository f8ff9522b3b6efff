"""Parcels of all workers of a target become its figures."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

from ..client import Opening
from ..figures import Latencies
from ..processes import Standing
from ..results import Interval, ProcessUse, TargetResult
from ..targets import Target
from .parcels import Done, Opened, Parcel, samples
from .plan import Load


@dataclass(slots=True)
class _Open:
    """An interval to which something may still come."""

    calls: list["array[int]"]  # by place in the mix
    connects: "array[int]" = field(default_factory=lambda: array("q"))
    late: "array[int]" = field(default_factory=lambda: array("q"))
    bytes_up: int = 0
    bytes_down: int = 0
    events: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class Gathering:
    """One target's."""

    def __init__(self, target: Target, opening: Opening, load: Load, workers: int) -> None:
        uri = target.uri if target.uri is not None else opening.uri
        self.result = TargetResult(name=target.name, address=str(target.address), uri=uri)
        self.late = Latencies()
        self.done: list[Done] = []
        self._load = load
        self._workers = workers
        self._procedures = [Latencies() for _ in load.mix.work]
        self._reached = [0] * workers  # the interval that each worker is in
        self._open: dict[int, _Open] = {}

    @property
    def is_done(self) -> bool:
        return len(self.done) == self._workers

    def opened(self, opened: Opened) -> None:
        self.result.cipher = self.result.cipher or opened.cipher

    def take(self, worker: int, parcel: Parcel) -> list[Interval]:
        """The intervals that are over with it."""
        self._reached[worker] = parcel.interval
        found = self._open.get(parcel.interval)
        if found is None:
            found = self._open[parcel.interval] = self._empty()
        for place, latencies in parcel.calls.items():
            found.calls[place] += samples(latencies)
        found.connects += samples(parcel.connects)
        found.late += samples(parcel.late)
        found.bytes_up += parcel.bytes_up
        found.bytes_down += parcel.bytes_down
        found.events += parcel.events
        found.errors.update(parcel.errors)
        return self._close(min(self._reached))

    def finish(self, worker: int, done: Done) -> list[Interval]:
        """As `take`, for the last that a worker sends."""
        self._reached[worker] = done.intervals
        self.done.append(done)
        if not self.is_done:
            return self._close(min(self._reached))
        self.result.elapsed_s = max(one.elapsed_ns for one in self.done) / 1e9
        return self._close(max(self._reached))

    def finished(self, before: list[Standing], after: list[Standing], cpu: dict[str, int]) -> None:
        """What remains when all workers are done, with what the target's processes used."""
        result, work = self.result, self._load.mix.work
        for (one, _), latencies in zip(work, self._procedures, strict=True):
            result.calls.absorb(latencies)
            result.procedures[one.title] = latencies
        for interval in result.intervals:
            result.bytes_up += interval.bytes_up
            result.bytes_down += interval.bytes_down
            result.events += interval.events
            for kind, number in interval.errors.items():
                result.errors[kind] = result.errors.get(kind, 0) + number
        result.processes = [
            ProcessUse(
                label=late.label,
                pids=late.pids,
                cpu_s=cpu[late.label] / 1e9,
                rss_kib=late.rss_kib,
                rss_kib_before=early.rss_kib,
                descriptors=late.descriptors,
                descriptors_before=early.descriptors,
            )
            for early, late in zip(before, after, strict=True)
        ]

    def _empty(self) -> _Open:
        return _Open([array("q") for _ in self._load.mix.work])

    def _close(self, until: int) -> list[Interval]:
        """Those before this one."""
        made = [
            self._interval(number, self._open.pop(number, self._empty()))
            for number in range(len(self.result.intervals), until)
        ]
        self.result.intervals += made
        return made

    def _interval(self, number: int, found: _Open) -> Interval:
        load = self._load
        begins_s = number * load.interval_s
        ends_s = min(begins_s + load.interval_s, load.course.length_s)
        is_last = self.is_done and number == max(self._reached) - 1
        if is_last and self.result.elapsed_s < ends_s:
            ends_s = self.result.elapsed_s  # it was stopped
        asked = load.course.amount(ends_s) - load.course.amount(begins_s)
        rate = None if load.closed else asked / (ends_s - begins_s)
        if is_last:
            ends_s = self.result.elapsed_s  # the last replies came after the end
        # All of an interval at once: many samples are in one bucket then, which takes a third of
        # the time that recording them as they come does.
        for latencies, these in zip(self._procedures, found.calls, strict=True):
            latencies.record(these)
        self.result.connects.record(found.connects)
        self.late.record(found.late)
        ordered = sorted(chain.from_iterable(found.calls))
        return Interval(
            begins_s=begins_s,
            length_s=ends_s - begins_s,
            rate=rate,
            calls=len(ordered),
            connects=len(found.connects),
            bytes_up=found.bytes_up,
            bytes_down=found.bytes_down,
            events=found.events,
            p50_ns=percentile(ordered, 50),
            p99_ns=percentile(ordered, 99),
            max_ns=ordered[-1] if ordered else None,
            errors=dict(found.errors),
        )


def percentile(ordered: list[int], percent: int) -> int | None:
    """The least of them that this share is not above; None of none."""
    if not ordered:
        return None
    return ordered[-(-len(ordered) * percent // 100) - 1]
