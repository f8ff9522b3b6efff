"""`soak` from its options to its exit status."""

import argparse
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from .. import amounts
from ..failures import UsageError
from ..machine import this_machine
from ..opening_options import add_opening, add_targets, opening_of, targets_of
from ..progress import countdown
from ..results import check_writable, save
from ..serving import settled
from ..statuses import INTERRUPTED, MISSED, OK, TOLD
from .outcome import as_text, is_clean, result
from .run import Plan, Soaked, run
from .volume import BLOCK

CALLS_URI: Final = "test:///default"
BULK_URI: Final = "qemu:///system"

_WARMUP_SHARE: Final = 0.1
_LONGEST_WARMUP_S: Final = 300.0
_SLOPE_KIB_H: Final = 4096.0
_LONG_ENOUGH_S: Final = 600.0  # for a slope per hour to say anything
_SIZE: Final = 8 << 20
_MOST: Final = 2000  # threads of one process


def add_parsers(subparsers: Any) -> None:
    """Adds `soak` to the scenarios."""
    parser = subparsers.add_parser(
        "soak",
        help="what goes wrong seldom: sessions that come, go and vanish, for hours",
        description="Keeps targets busy with clients of all kinds and holds every reply against its"
        " call. At the end it says what was lost, duplicated, reordered, misdelivered or corrupted,"
        " and whether descriptors or memory have leaked. It wants the targets for itself. Ctrl-C"
        " ends it early, with what is known by then.",
        epilog=TOLD,
    )
    add = parser.add_argument_group("targets").add_argument
    add_targets(add)
    add(
        "--uri",
        help="for targets without a uri= of their own"
        f" (default {CALLS_URI}, with --volume {BULK_URI}, where that is served; else what is)",
    )
    _add_amounts(parser.add_argument_group("load").add_argument)
    add_opening(parser.add_argument_group("sessions").add_argument)
    _add_outcome(parser.add_argument_group("result").add_argument)
    parser.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Raises UsageError, TargetFailure and NotKept; OK, MISSED or INTERRUPTED.

    A check that does not hold is told by MISSED although it was interrupted.
    """
    plan = plan_of(options)
    opening = settled(plan.targets, plan.opening, given=options.uri is not None)
    plan = replace(plan, opening=opening)
    check_writable(options.out)
    machine, started = this_machine(options.arguments), datetime.now(UTC).isoformat()
    with countdown("soak", plan.duration_s) as show:
        outcome = run(plan, lambda elapsed_s, soaked: show(elapsed_s, _told(soaked)))
    made = result(machine, started, plan, outcome)
    print(as_text(plan, made, outcome))
    save(made, options.out)
    if not is_clean(made):
        return MISSED
    return INTERRUPTED if outcome.interrupted else OK


def plan_of(options: argparse.Namespace) -> Plan:
    """Raises UsageError."""
    targets = targets_of(options)
    if options.volume is None and options.bulk is not None:
        raise UsageError("--bulk needs --volume PATH; virsh vol-list POOL shows what there is")
    uri = options.uri or (CALLS_URI if options.volume is None else BULK_URI)
    if options.connections * len(targets) > _MOST:
        raise UsageError(f"-c: {_MOST} connections are the most, to all targets together")
    unknown = set(options.gentle) - {target.name for target in targets}
    if unknown:
        raise UsageError(f"--gentle: {', '.join(sorted(unknown))}: no target has this name")
    size = options.bulk or _SIZE
    if size < BLOCK:
        raise UsageError(
            f"--bulk: a volume is checked in blocks of {BLOCK >> 10} KiB, so give more"
        )
    warmup_s = options.warmup
    if warmup_s is None:
        warmup_s = min(options.duration * _WARMUP_SHARE, _LONGEST_WARMUP_S)
    slope = options.memory_slope
    if slope is None and options.duration >= _LONG_ENOUGH_S:
        slope = _SLOPE_KIB_H
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    return Plan(
        targets=targets,
        opening=opening_of(options, targets, uri),
        seed=seed,
        connections=options.connections,
        duration_s=options.duration,
        warmup_s=warmup_s,
        volume=options.volume,
        size=size // BLOCK * BLOCK,
        memory_slope_kib_h=slope,
        kept=options.kept,
        gentle=frozenset(options.gentle),
    )


def _add_amounts(add: Callable[..., object]) -> None:
    duration = {"type": amounts.duration, "metavar": "TIME"}
    add("-d", "--duration", **duration, required=True, help="10s, 20m, 8h, behind the warm-up")
    add("--warmup", **duration, help="not judged (default: a tenth of -d, 5m at most)")
    add(
        *("-c", "--connections"),
        type=amounts.count,
        default=16,
        metavar="N",
        help="at a time, per target (default 16)",
    )
    add(
        "--gentle",
        action="append",
        default=[],
        metavar="NAME",
        help="clients of this target do not die with calls or streams under way, which libvirt's"
        " daemons may not survive when they are connected to directly",
    )
    add("--seed", type=int, metavar="N", help="draw as an earlier run did, whose report tells it")
    add(
        "--volume",
        metavar="PATH",
        help="read from this one, too, in a running pool, and compare what comes with what the"
        " first target says at the beginning",
    )
    add("--bulk", type=amounts.size, metavar="SIZE", help="so much of it (default 8MiB)")


def _add_outcome(add: Callable[..., object]) -> None:
    add(
        "--memory-slope",
        type=_slope,
        metavar="KIB",
        help="KiB per hour that a process may grow by (default 4096, and below ten minutes"
        " anything); less than 1 MiB in all is no leak",
    )
    add(
        "--kept",
        type=_many,
        default=0,
        metavar="N",
        help="descriptors that a process may have kept at the end, beyond those that it had at"
        " half-time (default 0)",
    )
    add("--out", type=Path, metavar="FILE.json", help="keep the result, for report and plot")


def _slope(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e12:  # more than any machine has
        raise argparse.ArgumentTypeError(f"{text!r} is no number of KiB per hour")
    return found


def _many(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _told(soaked: list[Soaked]) -> str:
    """For a person who waits."""
    entries = [one.ledger.entries for one in soaked]
    faults = sum(sum(one.ledger.faults.values()) for one in soaked)
    return (
        f"{sum(each.sessions for each in entries)} sessions,"
        f" {sum(each.answered for each in entries)} calls, {faults} faults"
    )
