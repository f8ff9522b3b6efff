"""Figures as a table for a person, or as one JSON document for a program."""

import json
import textwrap
from dataclasses import asdict, dataclass
from typing import Any, Final

from loadtest.figures import Against, Figure, Round, TargetFigures, Work, against, cpu_ratio
from loadtest.machine import Machine
from loadtest.scenarios.compare import Plan
from loadtest.targets import Target

WIDTH: Final = 100
PERCENTILES: Final = (50.0, 90.0, 99.0)
# A generator above this is the limit itself, if no measured process was near it.
BUSY_SHARE: Final = 0.9
NEAR_SHARE: Final = 0.8
FULL_MACHINE: Final = 0.95
_NOTHING: Final = "–"


@dataclass(frozen=True, slots=True)
class Report:
    machine: Machine
    plan: Plan
    procedure: str
    figures: list[TargetFigures]


def as_text(report: Report) -> str:
    """The report as lines of at most WIDTH columns, unless the command has a longer word."""
    parts = [_heading(report), _latency_table(report), _against_table(report)]
    parts += [_process_table(report), _footnotes(report)]
    return "\n\n".join(part for part in parts if part)


def as_json(report: Report) -> str:
    plan, first = report.plan, report.figures[0]
    document = {
        "machine": asdict(report.machine),
        "scenario": "compare",
        "mode": "interleaved" if plan.connections == 1 else "slices",
        "procedure": report.procedure,
        "plan": {
            "opening": asdict(plan.opening),
            "rounds": plan.rounds,
            "warmup": plan.warmup,
            "connections": plan.connections,
            "calls": plan.calls,
            "slices": plan.slices,
            "slice_s": plan.slice_s,
        },
        "targets": [_target_json(figures, first) for figures in report.figures],
        "notes": notes(report),
    }
    return json.dumps(document, indent=2, allow_nan=False)


def notes(report: Report) -> list[str]:
    """What a reader must know before believing the rates."""
    found = []
    for figures in report.figures:
        work = figures.combined().work
        if report.plan.connections > 1:
            found += _limits(figures.target, work, report.machine.cores)
    return found


def _limits(target: Target, work: Work, cores: int) -> list[str]:
    name = target.name
    shares = {label: work.share(label) for label in work.cpu_ns}
    busiest = max(shares.values(), default=0.0)
    found = []
    if work.tool_share > BUSY_SHARE and busiest < NEAR_SHARE:
        told = f"its busiest process {busiest:.0%}" if shares else "no process is known"
        found.append(
            f"{name}: the load tool is the limit: it used {work.tool_share:.0%} of a core, {told}"
        )
    # By process ids, because one process may stand under two labels.
    apart = {group.pids: shares[group.label] for group in target.groups}
    total = work.tool_share + sum(apart.values())
    if total > FULL_MACHINE * cores:
        found.append(
            f"{name}: the machine is the limit: {total:.2f} of its {cores} cores were in use"
        )
    return found


def _heading(report: Report) -> str:
    plan, machine = report.plan, report.machine
    rounds = "1 round" if plan.rounds == 1 else f"{plan.rounds} rounds"
    if plan.connections == 1:
        how = f"1 connection, {rounds} of {plan.calls} interleaved calls"
    else:
        how = f"{plan.connections} connections, {rounds} of {plan.slices} slices"
        how += f" of {plan.slice_s:g} s"
    lines = [
        f"compare {report.procedure}: {how} per target",
        f"on {machine.cores} × {machine.cpu_model}, {machine.kernel}, Python {machine.python}",
        f"proxyd-loadtest {machine.tool_version}, commit {machine.commit or 'unknown'}",
        f"load of the machine before: {machine.load:.2f}",
    ]
    command = textwrap.wrap(
        machine.command,
        WIDTH,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines + command)


def _latency_table(report: Report) -> str:
    head = ["latency, µs", "p50", "p90", "p99", "max", "calls/s", "tool CPU/call", "of a core"]
    rows = []
    for figures in report.figures:
        whole = figures.combined()
        shown = [_us(whole.latencies.percentile(percent)) for percent in PERCENTILES]
        shown += [_us(whole.latencies.highest), f"{whole.work.rate:.0f}"]
        shown += [_us(whole.work.tool_per_call_ns), f"{whole.work.tool_share:.0%}"]
        rows.append([figures.target.name, *shown])
    return _table(head, rows)


def _against_table(report: Report) -> str:
    first = report.figures[0]
    head = [f"beside {first.target.name}", "p50 ÷", "added p50, µs", "added p50 ÷", "calls/s ÷"]
    rows = []
    for figures in report.figures[1:]:
        found = against(figures, first)
        rows.append(
            [
                figures.target.name,
                _spread(found.p50_ratio),
                _spread(found.added_p50_ns, scale=1e-3, digits=1),
                _spread(found.added_ratio),
                _spread(found.rate_ratio),
            ]
        )
    return _table(head, rows) if rows else ""


def _process_table(report: Report) -> str:
    head = ["processes", "label", "CPU/call, µs", "of a core", "CPU ÷", "RSS, KiB", "fds"]
    rows = []
    for figures in report.figures:
        work, name = figures.combined().work, figures.target.name
        for standing in figures.standings:
            label = standing.label
            fds = _NOTHING if standing.descriptors is None else str(standing.descriptors)
            shown = [_us(work.per_call_ns(label)), f"{work.share(label):.0%}"]
            shown += [_cpu_ratio(figures, label), str(standing.rss_kib), fds]
            rows.append([name, label, *shown])
    return _table(head, rows) if rows else ""


def _cpu_ratio(figures: TargetFigures, label: str) -> str:
    """The first group's CPU ÷ this one's; nothing beside the first itself."""
    leading = figures.standings[0].label
    return "" if label == leading else _spread(cpu_ratio(figures, leading, label))


def _footnotes(report: Report) -> str:
    lines = [
        "(a..b): lowest and highest round; ÷: divided by the same figure of the first target;",
        "calls/s ÷ is the median over neighbouring blocks or slices",
    ]
    if any(len(figures.standings) > 1 for figures in report.figures):
        lines.append("CPU ÷: the target's first label divided by this one")
    lines += [f"NOTE {note}" for note in notes(report)]
    return "\n".join(lines)


def _us(nanoseconds: float) -> str:
    return f"{nanoseconds / 1000:.1f}"


def _spread(figure: Figure | None, scale: float = 1.0, digits: int = 2) -> str:
    if figure is None:
        return _NOTHING
    # `z`: what rounds to zero has no sign.
    value, low, high = (f"{n * scale:z.{digits}f}" for n in (figure.value, figure.low, figure.high))
    return f"{value} ({low}..{high})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as they need to be: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in [head, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return "\n".join(lines)


def _target_json(figures: TargetFigures, first: TargetFigures) -> dict[str, Any]:
    target = figures.target
    leading = target.groups[0].label if target.groups else ""
    return {
        "name": target.name,
        "address": str(target.address),
        "uri": target.uri,
        "rounds": [_round_json(one) for one in figures.rounds],
        "combined": _round_json(figures.combined()),
        "against_first": _against_json(against(figures, first)),
        "cpu_ratio": {
            f"{leading}/{group.label}": _figure_json(cpu_ratio(figures, leading, group.label))
            for group in target.groups[1:]
        },
        "processes": [asdict(standing) for standing in figures.standings],
    }


def _round_json(one: Round) -> dict[str, Any]:
    work = one.work
    return {
        "latency_ns": {
            **{f"p{percent:g}": one.latencies.percentile(percent) for percent in PERCENTILES},
            "max": one.latencies.highest,
        },
        "latency_samples": one.latencies.count,
        "calls": work.calls,
        "elapsed_ns": work.elapsed_ns,
        "calls_per_s": work.rate,
        "calls_per_s_of_each_slice": one.rates,
        "tool_cpu_per_call_ns": work.tool_per_call_ns,
        "tool_share_of_a_core": work.tool_share,
        "cpu_per_call_ns": {label: work.per_call_ns(label) for label in work.cpu_ns},
        "share_of_a_core": {label: work.share(label) for label in work.cpu_ns},
    }


def _against_json(found: Against) -> dict[str, Any]:
    return {
        "p50_ratio": _figure_json(found.p50_ratio),
        "added_p50_ns": _figure_json(found.added_p50_ns),
        "added_p50_ratio": _figure_json(found.added_ratio),
        "rate_ratio": _figure_json(found.rate_ratio),
    }


def _figure_json(figure: Figure | None) -> dict[str, Any] | None:
    if figure is None:
        return None
    return {
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "per_round": list(figure.per_round),
    }
