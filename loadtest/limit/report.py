"""The figures of `limit`: a table for a person, one JSON document for a program."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from proxyd.wire.names import procedure_name
from proxyd.wire.programs import Program

from ..figures import Figure
from ..machine import Machine
from ..report import PERCENTILES, heading
from ..results import Verdict
from ..showing.verdicts import mark
from ..tables import NOTHING, spread, table, us
from .measure import Entrant, Order, Plan
from .outcome import Added, added, bare_of


@dataclass(frozen=True, slots=True)
class Report:
    """All that is shown. The first entrant is the daemon itself."""

    machine: Machine
    plan: Plan
    entrants: Sequence[Entrant]
    verdicts: Sequence[Verdict]

    def added(self, one: Entrant, order: Order) -> Added | None:
        """None for the daemon itself."""
        return None if one is self.entrants[0] else added(self.entrants, one, order)


def as_text(report: Report) -> str:
    """The report as lines."""
    plan = report.plan
    name = procedure_name(Program.REMOTE, plan.procedure)
    rounds = "1 round" if plan.rounds == 1 else f"{plan.rounds} rounds"
    title = f"limit {name}: {rounds} of {plan.calls} calls per target and order, warm in rows"
    parts = [
        heading(f"{title} of {plan.row}", report.machine),
        *(_table(report, order) for order in Order),
        _costs(report),
        _thresholds(report),
        _footnotes(report),
    ]
    return "\n\n".join(part for part in parts if part)


def _table(report: Report, order: Order) -> str:
    head = [f"{order.value}, µs", "p50", "p90", "p99", "added p50", "× bare"]
    rows = []
    for one in report.entrants:
        latencies, found = one.figures(order).combined().latencies, report.added(one, order)
        rows.append(
            [
                one.target.name,
                *(us(latencies.percentile(percent)) for percent in PERCENTILES),
                spread(found.p50_ns, 1e-3, 1) if found else NOTHING,
                spread(found.multiple) if found else NOTHING,
            ]
        )
    return table(head, rows)


def _costs(report: Report) -> str:
    rows = []
    for one in report.entrants:
        work = one.warm.combined().work
        rows += [
            [one.target.name, standing.label, us(work.per_call_ns(standing.label))]
            for standing in one.warm.standings
        ]
    return table(["processes, warm", "label", "CPU/call, µs"], rows)


def _thresholds(report: Report) -> str:
    rows = [
        f"  {mark(one)} {one.text:<20}  {one.target:<20}"
        f"  {NOTHING if one.value is None else f'{one.value:.2f}'}"
        for one in report.verdicts
    ]
    return "\n".join(["Thresholds", *rows]) if rows else ""


def _footnotes(report: Report) -> str:
    direct = report.entrants[0].target.name
    lines = [
        f"added p50: median minus that of {direct}; × bare: divided by what the bare relay adds;",
        "(a..b): lowest and highest round; cold: each call behind one to the daemon itself",
    ]
    ciphers = {one.target.name: one.warm.cipher for one in report.entrants if one.warm.cipher}
    lines += [f"{name}: {cipher}" for name, cipher in ciphers.items()]
    return "\n".join([*lines, *(f"NOTE {note}" for note in notes(report))])


def notes(report: Report) -> list[str]:
    """What a reader must know before believing a multiple."""
    found = []
    for one in report.entrants[1:]:
        bare = bare_of(report.entrants, one)
        if one.warm.cipher != bare.warm.cipher:
            found.append(
                f"{one.target.name} and {bare.target.name} do not encrypt alike: their multiple is"
                " also that of the ciphers"
            )
    return found


def as_json(report: Report) -> str:
    """Every figure of every round."""
    plan = report.plan
    asked = asdict(plan)
    del asked["direct"], asked["proxies"]
    document = {
        "machine": asdict(report.machine),
        "scenario": "limit",
        "procedure": procedure_name(Program.REMOTE, plan.procedure),
        "plan": asked,
        "targets": [_target(report, one) for one in report.entrants],
        "verdicts": [asdict(one) for one in report.verdicts],
        "notes": notes(report),
        "text": as_text(report),  # what `report` shows of it
    }
    return json.dumps(document, indent=2, allow_nan=False)


def _target(report: Report, one: Entrant) -> dict[str, Any]:
    work = one.warm.combined().work
    direct = one is report.entrants[0]
    return {
        "name": one.target.name,
        "address": str(one.target.address),
        "uri": one.target.uri,
        "cipher": one.warm.cipher,
        "beside": None if direct else bare_of(report.entrants, one).target.name,
        **{order.value: _order(report, one, order) for order in Order},
        "cpu_per_call_ns": {label: work.per_call_ns(label) for label in work.cpu_ns},
        "processes": [asdict(standing) for standing in one.warm.standings],
    }


def _order(report: Report, one: Entrant, order: Order) -> dict[str, Any]:
    figures, found = one.figures(order), report.added(one, order)
    latencies = figures.combined().latencies
    return {
        "samples": latencies.count,
        "latency_ns": {f"p{percent:g}": latencies.percentile(percent) for percent in PERCENTILES},
        "p50_ns_of_each_round": [each.p50_ns for each in figures.rounds],
        "added_p50_ns": _figure(found.p50_ns if found else None),
        "multiple": _figure(found.multiple if found else None),
    }


def _figure(figure: Figure | None) -> dict[str, Any] | None:
    if figure is None:
        return None
    found = {"value": figure.value, "low": figure.low, "high": figure.high}
    return {**found, "per_round": list(figure.per_round)}
