"""A result as text, in the layout that people know from vegeta and wrk2."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from ..figures import Latencies
from ..machine import Machine
from ..results import ProcessUse, Result, TargetResult, ToolUse
from ..tables import NOTHING, table
from . import verdicts
from .runs import Run, asked_rate, reached_rate, succeeded, tried
from .words import amount, clean, duration, number, share, shortened

WIDTH: Final = 100
PERCENTS: Final = (50.0, 90.0, 95.0, 99.0, 99.9)
DISTRIBUTION: Final = (50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0)
_BESIDE: Final = 6  # targets in one table of the distribution
_COLUMN: Final = 12


def as_text(result: Result) -> str:
    """Lines of at most WIDTH columns, unless the command has a longer word."""
    parts = [_heading(result)]
    parts += [_target(target, result.tool) for target in result.targets]
    parts += _distributions(result.targets)
    parts += [_processes(result.targets), _thresholds(result), _notes(result)]
    return "\n\n".join(part for part in parts if part)


def runs_as_text(runs: Sequence[Run]) -> str:
    """One below the other, each under its name if there are several."""
    if len(runs) == 1:
        return as_text(runs[0].result)
    titled = [(shortened(clean(run.name), WIDTH), as_text(run.result)) for run in runs]
    return "\n\n\n".join(f"{name}\n{'=' * len(name)}\n{text}" for name, text in titled)


def _heading(result: Result) -> str:
    lines = _wrapped(f"{result.scenario}, started {result.started}")
    lines += _machine(result.machine)
    return "\n".join(lines)


def _machine(machine: Machine) -> list[str]:
    lines = [
        f"on {machine.cores} × {machine.cpu_model}, {machine.kernel}, Python {machine.python}",
        f"proxyd-loadtest {machine.tool_version}, commit {machine.commit or 'unknown'}",
        f"load of the machine before: {machine.load:.2f}",
    ]
    command = textwrap.wrap(
        clean(machine.command),
        WIDTH,
        subsequent_indent="    ",
        break_long_words=False,  # so that it can be copied
        break_on_hyphens=False,
    )
    return [line for text in lines for line in _wrapped(text)] + command


def _target(target: TargetResult, tool: ToolUse) -> str:
    lines = _wrapped("  ".join(_titles(target)))
    for label, what, values in _facts(target, tool):
        lines += _wrapped(", ".join(values), f"  {label:<14}{what:<28}")
    if target.calls.count or target.connects.count:
        lines += ["", textwrap.indent(_latencies(target), "  ")]
    return "\n".join(lines)


def _titles(target: TargetResult) -> list[str]:
    return [target.name, target.address, target.uri, *([target.cipher] if target.cipher else [])]


def _facts(target: TargetResult, tool: ToolUse) -> list[tuple[str, str, list[str]]]:
    calls = target.calls.count
    asked = asked_rate(target.intervals)
    told = ", ".join(f"{name}: {count}" for name, count in sorted(target.errors.items()))
    events = [("Events", "[total]", [str(target.events)])] if target.events else []
    return [
        (
            "Requests",
            "[total, asked/s, got/s]",
            [
                str(calls),
                "closed model" if asked is None else number(asked),
                number(reached_rate(target)),
            ],
        ),
        ("Duration", "[measured]", [duration(target.elapsed_s * 1e9)]),
        ("Bytes In", "[total, mean]", _bytes(target.bytes_down, calls)),
        ("Bytes Out", "[total, mean]", _bytes(target.bytes_up, calls)),
        *events,
        ("Success", "[ratio]", [share(succeeded(target), tried(target))]),
        ("Error Set", "[class: count]", [told or "none"]),
        ("Load tool", "[workers, CPU, busiest]", tool_figures(tool)),
    ]


def tool_figures(tool: ToolUse) -> list[str]:
    """Workers, their CPU time together, the busiest one's share, and how late calls were sent."""
    told = [str(tool.workers), f"{tool.cpu_s:.2f}s", f"{tool.busiest_share:.0%} of a core"]
    if tool.late_p99_ns is not None:
        told.append(f"sent late by p99 {duration(tool.late_p99_ns)}")
    return told


def _bytes(count: int, calls: int) -> list[str]:
    return [amount(count), amount(count / calls) if calls else NOTHING]


def _latencies(target: TargetResult) -> str:
    head = ["Latencies", "count", "min", "mean"]
    head += [f"p{percent:g}" for percent in PERCENTS] + ["max"]
    series = [("calls", target.calls), ("connects", target.connects)]
    series += [(f"  {clean(name)}", one) for name, one in sorted(target.procedures.items())]
    rows = [[name, *latency_row(one)] for name, one in series if one.count or one is target.calls]
    numbers = zip(head[1:], *(row[1:] for row in rows), strict=True)
    room = WIDTH - 2 - sum(2 + max(map(len, column)) for column in numbers)
    return table(head, [[shortened(row[0], room), *row[1:]] for row in rows])


def latency_row(latencies: Latencies) -> list[str]:
    """Count, lowest, mean, the PERCENTS, highest."""
    if not latencies.count:
        return ["0", *[NOTHING] * (len(PERCENTS) + 3)]
    found = latencies.percentiles([0.0, *PERCENTS])
    return [
        str(latencies.count),
        duration(found[0.0]),
        duration(latencies.mean),
        *(duration(found[percent]) for percent in PERCENTS),
        duration(latencies.highest),
    ]


def _distributions(targets: Sequence[TargetResult]) -> Iterable[str]:
    measured = [target for target in targets if target.calls.count]
    for first in range(0, len(measured), _BESIDE):
        beside = measured[first : first + _BESIDE]
        found = [target.calls.percentiles(DISTRIBUTION) for target in beside]
        head = ["", *(shortened(clean(target.name), _COLUMN).rjust(_COLUMN) for target in beside)]
        rows = [
            [f"{percent:10.3f}%", *(duration(one[percent]) for one in found)]
            for percent in DISTRIBUTION
        ]
        yield "Latency Distribution (HdrHistogram)\n" + table(head, rows)


def _processes(targets: Sequence[TargetResult]) -> str:
    head = ["processes", "label", "CPU", "of a core", "CPU/call", "RSS, KiB", "before"]
    head += ["fds", "before"]
    rows = [
        [
            shortened(clean(target.name), 16),
            shortened(clean(one.label), 12),
            *process_row(one, target),
        ]
        for target in targets
        for one in target.processes
    ]
    return table(head, rows) if rows else ""


def process_row(one: ProcessUse, target: TargetResult) -> list[str]:
    """CPU time, of a core, for each call; memory and descriptors, each after and before."""
    calls = target.calls.count
    return [
        f"{one.cpu_s:.2f}s",
        f"{one.cpu_s / target.elapsed_s:.0%}" if target.elapsed_s > 0 else NOTHING,
        duration(one.cpu_s * 1e9 / calls) if calls else NOTHING,
        str(one.rss_kib),
        str(one.rss_kib_before),
        NOTHING if one.descriptors is None else str(one.descriptors),
        NOTHING if one.descriptors_before is None else str(one.descriptors_before),
    ]


def _thresholds(result: Result) -> str:
    if not result.verdicts:
        return ""
    lines = [
        f"  {verdicts.mark(one)} {shortened(clean(one.text), 40):<40}"
        f"  {shortened(clean(one.target), 24):<24}  {verdicts.found(one)}"
        for one in result.verdicts
    ]
    return "\n".join(["Thresholds", *lines])


def _notes(result: Result) -> str:
    told = [f"the load tool is the limit: {why}"] if (why := result.tool.bottleneck) else []
    told += result.notes
    return "\n".join(line for note in told for line in _wrapped(note, "NOTE "))


def _wrapped(text: str, begin: str = "") -> list[str]:
    """Lines that go on below where the first began."""
    return textwrap.wrap(
        clean(text), WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin)
    ) or [begin.rstrip()]
