"""Figures as a table for a person."""

import textwrap
from dataclasses import dataclass
from typing import Final

from proxyd.wire.names import procedure_name
from proxyd.wire.programs import Program

from .figures import (
    TargetFigures,
    Work,
    against,
    cpu_ratio,
    median_figure,
    transfer_against,
)
from .machine import Machine
from .scenarios import bulk, compare, sessions
from .scenarios.plans import Plan, unit
from .tables import NOTHING, size, spread, table, us
from .targets import Target

WIDTH: Final = 100
PERCENTILES: Final = (50.0, 90.0, 99.0)
# A generator above this is the limit itself, if no measured process was near it.
BUSY_SHARE: Final = 0.9
NEAR_SHARE: Final = 0.8
FULL_MACHINE: Final = 0.95


@dataclass(frozen=True, slots=True)
class _Time:
    """How latencies are shown."""

    name: str
    ns: int
    digits: int

    def shown(self, nanoseconds: float) -> str:
        return f"{nanoseconds / self.ns:.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Report:
    machine: Machine
    plan: Plan
    figures: list[TargetFigures]

    @property
    def first(self) -> TargetFigures:
        """What the others are compared with."""
        return self.figures[0]


def as_text(report: Report) -> str:
    """The report as lines of at most WIDTH columns, unless the command has a longer word."""
    if isinstance(report.plan, bulk.Plan):
        own, beside = _transfer_table(report, report.plan), _transfer_against_table(report)
    else:
        own, beside = _latency_table(report), _against_table(report)
    head = heading(f"compare {_work(report.plan)} per target", report.machine)
    parts = [head, own, beside, _process_table(report), _footnotes(report)]
    return "\n\n".join(part for part in parts if part)


def notes(report: Report) -> list[str]:
    """What a reader must know before believing the rates."""
    plan = report.plan
    if isinstance(plan, compare.Plan) and plan.connections == 1:
        return []  # a call at a time: nobody is the limit, and nobody says so
    found = []
    for figures in report.figures:
        found += _limits(figures.target, figures.combined().work, report.machine.cores)
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


def heading(title: str, machine: Machine) -> str:
    """What a report begins with."""
    lines = [
        title,
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


def _work(plan: Plan) -> str:
    rounds = "1 round" if plan.rounds == 1 else f"{plan.rounds} rounds"
    match plan:
        case compare.Plan(connections=1):
            name = procedure_name(Program.REMOTE, plan.procedure)
            return f"{name}: 1 connection, {rounds} of {plan.calls} interleaved calls"
        case compare.Plan():
            name = procedure_name(Program.REMOTE, plan.procedure)
            how = f"{plan.connections} connections, {rounds}"
            return f"{name}: {how} of {plan.slices} slices of {plan.slice_s:g} s"
        case sessions.Plan():
            how = f"{plan.connections} at a time, {rounds}"
            return f"new sessions: {how} of {plan.slices} slices of {plan.slice_s:g} s"
        case bulk.Plan():
            way = "upload" if plan.upload else "download"
            return f"{way} of {size(plan.size)}: {rounds} of 1 transfer"


def _time(plan: Plan) -> _Time:
    return _Time("ms", 1_000_000, 2) if isinstance(plan, sessions.Plan) else _Time("µs", 1000, 1)


def _latency_table(report: Report) -> str:
    name, time = unit(report.plan), _time(report.plan)
    head = [f"latency, {time.name}", "p50", "p90", "p99", "max"]
    head += [f"{name}s/s", f"tool CPU/{name}, µs", "of a core"]
    rows = []
    for figures in report.figures:
        whole = figures.combined()
        shown = [time.shown(whole.latencies.percentile(percent)) for percent in PERCENTILES]
        shown += [time.shown(whole.latencies.highest), f"{whole.work.rate:.0f}"]
        shown += [us(whole.work.tool_per_call_ns), f"{whole.work.tool_share:.0%}"]
        rows.append([figures.target.name, *shown])
    return table(head, rows)


def _against_table(report: Report) -> str:
    first, time = report.first, _time(report.plan)
    head = [f"beside {first.target.name}", "p50 ÷", f"added p50, {time.name}", "added p50 ÷"]
    head.append(f"{unit(report.plan)}s/s ÷")
    rows = []
    for figures in report.figures[1:]:
        found = against(figures, first)
        rows.append(
            [
                figures.target.name,
                spread(found.p50_ratio),
                spread(found.added_p50_ns, scale=1 / time.ns, digits=time.digits),
                spread(found.added_ratio),
                spread(found.rate_ratio),
            ]
        )
    return table(head, rows) if rows else ""


def _transfer_table(report: Report, plan: bulk.Plan) -> str:
    head = ["transfer", "seconds", "MB/s", "tool CPU, s", "of a core"]
    rows = []
    for figures in report.figures:
        work = figures.combined().work
        rows.append(
            [
                figures.target.name,
                spread(median_figure(figures.seconds), digits=3),
                spread(median_figure(plan.size / one for one in figures.seconds), 1e-6, digits=0),
                f"{work.tool_per_call_ns / 1e9:.3f}",
                f"{work.tool_share:.0%}",
            ]
        )
    return table(head, rows)


def _transfer_against_table(report: Report) -> str:
    first = report.first
    head = [f"beside {first.target.name}", "seconds ÷", "added seconds", "MB/s ÷", "all CPU ÷"]
    rows = []
    for figures in report.figures[1:]:
        found = transfer_against(figures, first)
        rows.append(
            [
                figures.target.name,
                spread(found.seconds_ratio),
                spread(found.added_s, digits=3),
                spread(found.rate_ratio),
                spread(found.cpu_ratio),
            ]
        )
    return table(head, rows) if rows else ""


def _process_table(report: Report) -> str:
    name = unit(report.plan)
    in_seconds = isinstance(report.plan, bulk.Plan)
    cost = f"CPU/{name}, {'s' if in_seconds else 'µs'}"
    head = ["processes", "label", cost, "of a core", "CPU ÷", "RSS, KiB", "fds"]
    rows = []
    for figures in report.figures:
        work = figures.combined().work
        for standing in figures.standings:
            label = standing.label
            used = work.per_call_ns(label)
            fds = NOTHING if standing.descriptors is None else str(standing.descriptors)
            shown = [f"{used / 1e9:.3f}" if in_seconds else us(used), f"{work.share(label):.0%}"]
            shown += [_cpu_ratio(figures, label), str(standing.rss_kib), fds]
            rows.append([figures.target.name, label, *shown])
    return table(head, rows) if rows else ""


def _cpu_ratio(figures: TargetFigures, label: str) -> str:
    """The first group's CPU ÷ this one's; nothing beside the first itself."""
    leading = figures.standings[0].label
    return "" if label == leading else spread(cpu_ratio(figures, leading, label))


def _footnotes(report: Report) -> str:
    lines = ["(a..b): lowest and highest round; ÷: divided by the same figure of the first target;"]
    if isinstance(report.plan, bulk.Plan):
        lines.append("before it the median round; all CPU ÷: all processes of a target together")
    else:
        name = unit(report.plan)
        lines.append(f"{name}s/s ÷ is the median over neighbouring blocks or slices")
    if any(len(figures.standings) > 1 for figures in report.figures):
        lines.append("CPU ÷: the target's first label divided by this one")
    lines += [f"{one.target.name}: {one.cipher}" for one in report.figures if one.cipher]
    lines += [f"NOTE {note}" for note in notes(report)]
    return "\n".join(lines)
