"""Results as CSV: numbers in the units that the columns' names end in, nothing rounded."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from ..figures import Latencies
from .runs import Run, asked_rate, reached_rate, series_of
from .text import PERCENTS
from .words import clean


def summary(runs: Sequence[Run]) -> str:
    """One row for the calls of each target, for its connects, and for each procedure."""
    head = ["run", "target", "address", "series", "count", "asked_per_s", "got_per_s", "errors"]
    head += ["bytes_up", "bytes_down", "events", "mean_ns", "min_ns"]
    head += [f"p{percent:g}_ns" for percent in PERCENTS] + ["max_ns", "tool_cpu_s"]
    rows: list[list[Any]] = []
    for series in series_of(runs):
        run, target = series.run, series.target
        who = [run.name, target.name, target.address]
        rates = [asked_rate(target.intervals), reached_rate(target)]
        tolls = [sum(target.errors.values()), target.bytes_up, target.bytes_down, target.events]
        cpu_s = run.result.tool.cpu_s
        rows.append(
            [*who, "calls", target.calls.count, *rates, *tolls, *_times(target.calls), cpu_s]
        )
        others = [("connects", target.connects), *sorted(target.procedures.items())]
        rows += [[*who, name, one.count, *[None] * 6, *_times(one), None] for name, one in others]
    return _csv(head, rows)


def intervals(runs: Sequence[Run]) -> str:
    """One row for each target and interval; a column for each class of errors that there was."""
    found = series_of(runs)
    classes = sorted(
        {name for series in found for one in series.target.intervals for name in one.errors}
    )
    head = ["run", "target", "begins_s", "length_s", "asked_per_s", "calls", "connects"]
    head += ["bytes_up", "bytes_down", "events", "p50_ns", "p99_ns", "max_ns", "errors"]
    head += [f"errors: {name}" for name in classes]
    rows = (
        [
            *(series.run.name, series.target.name, one.begins_s, one.length_s, one.rate),
            *(one.calls, one.connects, one.bytes_up, one.bytes_down, one.events),
            *(one.p50_ns, one.p99_ns, one.max_ns, sum(one.errors.values())),
            *(one.errors.get(name, 0) for name in classes),
        ]
        for series in found
        for one in series.target.intervals
    )
    return _csv(head, rows)


def _times(latencies: Latencies) -> list[float | None]:
    if not latencies.count:
        return [None] * (len(PERCENTS) + 3)
    found = latencies.percentiles([0.0, *PERCENTS])
    return [latencies.mean, *found.values(), latencies.highest]


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    for row in (head, *rows):
        writer.writerow([clean(one) if isinstance(one, str) else one for one in row])
    return made.getvalue()
