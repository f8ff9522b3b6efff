"""What a soak comes to: verdicts, the document that it leaves behind, and text for a person."""

import textwrap
from dataclasses import asdict
from typing import Any, Final

from ..machine import Machine
from ..results import ProcessUse, Result, TargetResult, ToolUse, Verdict
from ..tables import NOTHING, table, us
from .ledger import Fault
from .run import Outcome, Plan, Soaked
from .watch import Watched

WIDTH: Final = 100


def result(machine: Machine, started: str, plan: Plan, outcome: Outcome) -> Result:
    """The whole document. The account is in the plan, beside what was asked for."""
    asked: dict[str, Any] = {
        "connections": plan.connections,
        "duration_s": plan.duration_s,
        "warmup_s": plan.warmup_s,
        "seed": plan.seed,
        "uri": plan.opening.uri,
        "volume": plan.volume,
        "bulk": plan.size if plan.volume else None,
        "memory_slope_kib_h": plan.memory_slope_kib_h,
        "interrupted": outcome.interrupted,
    }
    ledgers = {one.target.name: _account(one) for one in outcome.soaked}
    share = outcome.tool_cpu_s / outcome.elapsed_s if outcome.elapsed_s else 0.0
    return Result(
        scenario="soak",
        machine=machine,
        started=started,
        plan=asked | {"ledger": ledgers},
        targets=[_target(plan, outcome, one) for one in outcome.soaked],
        tool=ToolUse(workers=1, cpu_s=outcome.tool_cpu_s, busiest_share=share),
        verdicts=[each for one in outcome.soaked for each in _verdicts(plan, outcome, one)],
        notes=_notes(plan, outcome),
    )


def is_clean(made: Result) -> bool:
    return all(verdict.met for verdict in made.verdicts)


def _account(one: Soaked) -> dict[str, Any]:
    watched = [
        {
            "label": each.before.label,
            "leaked_descriptors": each.leaked,
            "memory_slope_kib_h": each.slope_kib_h,
        }
        for each in one.watched
    ]
    faults = {str(fault): many for fault, many in one.ledger.faults.items()}
    examples = {str(fault): told for fault, told in one.ledger.examples.items() if told}
    return asdict(one.ledger.entries) | {
        "faults": faults,
        "examples": examples,
        "processes": watched,
    }


def _target(plan: Plan, outcome: Outcome, one: Soaked) -> TargetResult:
    entries = one.ledger.entries
    return TargetResult(
        name=one.target.name,
        address=str(one.target.address),
        uri=one.target.uri or plan.opening.uri,
        cipher=one.cipher,
        elapsed_s=outcome.elapsed_s,
        connects=one.connects,
        calls=one.calls,
        intervals=one.intervals,
        errors={str(fault): many for fault, many in one.ledger.faults.items() if many},
        bytes_up=entries.bytes_up,
        bytes_down=entries.bytes_down,
        processes=[_process(one, each) for each in one.watched],
    )


def _process(one: Soaked, watched: Watched) -> ProcessUse:
    before, after = watched.before, watched.after
    return ProcessUse(
        label=before.label,
        pids=before.pids,
        cpu_s=one.cpu_ns.get(before.label, 0) / 1e9,
        rss_kib=after.rss_kib,
        rss_kib_before=before.rss_kib,
        descriptors=after.descriptors,
        descriptors_before=before.descriptors,
    )


def _verdicts(plan: Plan, outcome: Outcome, one: Soaked) -> list[Verdict]:
    name = one.target.name
    found = [
        Verdict(text=f"{fault}=0", target=name, value=many, met=many == 0)
        for fault, many in one.ledger.faults.items()
    ]
    open_calls = one.ledger.entries.open
    found.append(Verdict(text="unaccounted=0", target=name, value=open_calls, met=open_calls == 0))
    if one.gone:
        found.append(Verdict(text="processes alive", target=name, value=None, met=False))
        return found
    for each in one.watched:
        label, leaked = each.before.label, each.leaked
        text = f"leaked descriptors({label})≤{plan.kept}"
        met = leaked is None or leaked <= plan.kept
        found.append(Verdict(text=text, target=name, value=leaked, met=met))
        if (limit := plan.memory_slope_kib_h) is None:
            continue
        text = f"memory slope({label})<{limit:g}KiB/h"
        grows = each.grows(limit, plan.memory_growth_kib, outcome.elapsed_s)
        found.append(Verdict(text=text, target=name, value=each.slope_kib_h, met=not grows))
    return found


def _notes(plan: Plan, outcome: Outcome) -> list[str]:
    found = []
    if outcome.interrupted:
        found.append(f"interrupted after {duration(outcome.elapsed_s)}")
    if plan.volume and any(
        one.place.reference and one.place.reference.alike for one in outcome.soaked
    ):
        found.append(
            f"{plan.volume} has blocks that are alike (is it sparse?): had they changed places,"
            " nobody would have noticed"
        )
    if plan.memory_slope_kib_h is None and any(one.watched for one in outcome.soaked):
        found.append("the memory slope was not judged: that takes ten minutes, or --memory-slope")
    for one in outcome.soaked:
        name = one.target.name
        found += [one.gone] if one.gone else []
        if not one.target.groups:
            found.append(f"{name}: without pid= nothing is known of descriptors and memory")
        if any(each.leaked is None for each in one.watched):
            found.append(f"{name}: another user's processes do not show their descriptors")
        for told in one.ledger.examples.values():
            found += [f"{name}: {each}" for each in told]
    return found


# ---- text


def as_text(plan: Plan, made: Result, outcome: Outcome) -> str:
    """At most WIDTH columns, unless a line has a longer word."""
    machine, tool = made.machine, made.tool
    many = "connection" if plan.connections == 1 else "connections"
    heading = [
        f"soak: {plan.connections} {many} per target, {duration(outcome.elapsed_s)} after"
        f" {duration(plan.warmup_s)} of warm-up, --seed {plan.seed}",
        f"on {machine.cores} × {machine.cpu_model}, {machine.kernel}, Python {machine.python}",
        f"proxyd-loadtest {machine.tool_version}, commit {machine.commit}",
        f"load of the machine before: {machine.load:.2f};"
        f" the tool's own CPU: {tool.cpu_s:.1f} s, {tool.busiest_share:.0%} of a core",
        machine.command,
    ]
    lines = [
        line for text in heading for line in textwrap.wrap(text, WIDTH, subsequent_indent="    ")
    ]
    parts = ["\n".join(lines), _calls(outcome), _sessions(outcome), _faults(outcome)]
    parts += [_processes(outcome), _footnotes(made), _last_word(made)]
    return "\n\n".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """For people: 20 min, 1 h 5 min, 12.5 s."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{many} {unit}" for many, unit in parts if many)


def _calls(outcome: Outcome) -> str:
    head = ["calls", "sent", "answered", "wrong", "given up by us", "lost", "p50, µs", "p99, µs"]
    rows = []
    for one in outcome.soaked:
        it, calls = one.ledger.entries, one.calls
        counts = [it.sent, it.answered, it.wrong, it.given_up, it.lost]
        times = [us(calls.percentile(at)) if calls.count else NOTHING for at in (50, 99)]
        rows.append([one.target.name, *map(str, counts), *times])
    return table(head, rows)


def _sessions(outcome: Outcome) -> str:
    head = ["sessions", "opened", "stillborn", "MB up", "MB down", "streams", "MB verified"]
    rows = []
    for one in outcome.soaked:
        it = one.ledger.entries
        up, down, checked = (
            f"{n / 1e6:.1f}" for n in (it.bytes_up, it.bytes_down, it.stream_bytes)
        )
        counts = [str(it.sessions), str(it.stillborn)]
        rows.append([one.target.name, *counts, up, down, str(it.streams), checked])
    return table(head, rows)


def _faults(outcome: Outcome) -> str:
    rows = [
        [one.target.name, *(str(one.ledger.faults[fault]) for fault in Fault)]
        for one in outcome.soaked
    ]
    return table(["faults", *map(str, Fault)], rows)


def _processes(outcome: Outcome) -> str:
    head = ["processes", "label", "CPU, s", "fds", "middle", "end", "RSS, KiB", "end"]
    rows = []
    for one in outcome.soaked:
        for each in one.watched:
            before, after, slope = each.before, each.after, each.slope_kib_h
            rows.append(
                [
                    one.target.name,
                    before.label,
                    f"{one.cpu_ns.get(before.label, 0) / 1e9:.1f}",
                    _known(before.descriptors),
                    _known(each.middle.descriptors),
                    _known(after.descriptors),
                    str(before.rss_kib),
                    str(after.rss_kib),
                    NOTHING if slope is None else f"{slope:+.0f}",
                ]
            )
    return table([*head, "KiB/h"], rows) if rows else ""


def _known(count: int | None) -> str:
    return NOTHING if count is None else str(count)


def _footnotes(made: Result) -> str:
    lines = [
        line for note in made.notes for line in textwrap.wrap(note, WIDTH, subsequent_indent="    ")
    ]
    return "\n".join(lines)


def _last_word(made: Result) -> str:
    missed = [each for each in made.verdicts if not each.met]
    if not missed:
        return f"CLEAN: all of {len(made.verdicts)} checks hold"
    told = [
        f"{each.target}: {each.text} is not so"
        + ("" if each.value is None else f", it is {each.value:.12g}")
        for each in missed
    ]
    return "\n".join([f"BAD: {len(missed)} of {len(made.verdicts)} checks do not hold", *told])
