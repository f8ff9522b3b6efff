"""Figures as one JSON document for a program."""

import json
from dataclasses import asdict
from typing import Any

from proxyd.wire.names import procedure_name
from proxyd.wire.programs import Program

from .figures import (
    Figure,
    Round,
    TargetFigures,
    against,
    cpu_ratio,
    transfer_against,
)
from .report import PERCENTILES, Report, as_text, notes
from .scenarios import bulk, compare, sessions
from .scenarios.plans import Plan, unit


def as_json(report: Report) -> str:
    """Every figure of every round."""
    plan = report.plan
    document = {
        "machine": asdict(report.machine),
        "scenario": "compare",
        "mode": _mode(plan),
        "unit": unit(plan),
        **_named(plan),
        "plan": {name: value for name, value in asdict(plan).items() if name != "targets"},
        "targets": [_target_json(figures, report) for figures in report.figures],
        "notes": notes(report),
        "text": as_text(report),  # what `report` shows of it
    }
    return json.dumps(document, indent=2, allow_nan=False)


def _mode(plan: Plan) -> str:
    match plan:
        case compare.Plan(connections=1):
            return "interleaved"
        case compare.Plan():
            return "slices"
        case sessions.Plan():
            return "sessions"
        case bulk.Plan():
            return "bulk"


def _named(plan: Plan) -> dict[str, str]:
    if isinstance(plan, compare.Plan):
        return {"procedure": procedure_name(Program.REMOTE, plan.procedure)}
    return {}


def _target_json(figures: TargetFigures, report: Report) -> dict[str, Any]:
    target, plan = figures.target, report.plan
    leading = target.groups[0].label if target.groups else ""
    found: dict[str, Any] = {
        "name": target.name,
        "address": str(target.address),
        "uri": target.uri,
        "cipher": figures.cipher,
        "rounds": [_round_json(one, plan) for one in figures.rounds],
        "combined": _round_json(figures.combined(), plan),
        "against_first": _against_json(figures, report),
        "cpu_ratio": {
            f"{leading}/{group.label}": _figure_json(cpu_ratio(figures, leading, group.label))
            for group in target.groups[1:]
        },
        "processes": [asdict(standing) for standing in figures.standings],
    }
    return found


def _round_json(one: Round, plan: Plan) -> dict[str, Any]:
    work, name = one.work, unit(plan)
    costs = {
        f"{name}s": work.calls,
        "elapsed_ns": work.elapsed_ns,
        f"{name}s_per_s": work.rate,
        f"tool_cpu_per_{name}_ns": work.tool_per_call_ns,
        "tool_share_of_a_core": work.tool_share,
        f"cpu_per_{name}_ns": {label: work.per_call_ns(label) for label in work.cpu_ns},
        "share_of_a_core": {label: work.share(label) for label in work.cpu_ns},
    }
    if isinstance(plan, bulk.Plan):
        return costs | {"bytes_per_s": plan.size * work.rate}
    return {
        "latency_ns": {
            **{f"p{percent:g}": one.latencies.percentile(percent) for percent in PERCENTILES},
            "max": one.latencies.highest,
        },
        "latency_samples": one.latencies.count,
        **costs,
        f"{name}s_per_s_of_each_slice": one.rates,
    }


def _against_json(figures: TargetFigures, report: Report) -> dict[str, Any]:
    if isinstance(report.plan, bulk.Plan):
        transfers = transfer_against(figures, report.first)
        return {
            "seconds_ratio": _figure_json(transfers.seconds_ratio),
            "added_s": _figure_json(transfers.added_s),
            "rate_ratio": _figure_json(transfers.rate_ratio),
            "all_cpu_ratio": _figure_json(transfers.cpu_ratio),
        }
    found = against(figures, report.first)
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
