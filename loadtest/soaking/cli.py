"""The command line of `soak`.

Exit statuses: 0 clean, 99 a check does not hold, 1 it could not run, 130 interrupted, clean so far.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from loadtest import amounts
from loadtest.failures import UsageError
from loadtest.machine import this_machine
from loadtest.opening_options import TARGET_HELP, add_opening, opening_of
from loadtest.results import save
from loadtest.soaking.outcome import as_text, is_clean, result
from loadtest.soaking.run import Plan, Soaked, Tell, run
from loadtest.soaking.volume import BLOCK
from loadtest.targets import parse_targets

CLEAN: Final = 0
COULD_NOT: Final = 1
BAD: Final = 99
INTERRUPTED: Final = 130

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
        help="sessions that come, go and vanish for a long time, and an account of every call",
        description="Keeps targets busy with clients of all kinds and checks every reply. At the"
        " end it says what was lost, duplicated, reordered, misdelivered or corrupted, and whether"
        " descriptors or memory have leaked. It wants the targets for itself.",
    )
    parser.add_argument("--target", action="append", required=True, help=TARGET_HELP)
    parser.add_argument("--uri", help=f"for targets without a uri= of their own ({CALLS_URI})")
    add_opening(parser)
    _add_amounts(parser)
    parser.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Runs it and returns the exit status. Raises UsageError and TargetFailure."""
    plan = plan_of(options)
    _check_writable(options.out)
    machine, started = this_machine(options.arguments), datetime.now(UTC).isoformat()
    with _progress(plan) as tell:
        outcome = run(plan, tell)
    made = result(machine, started, plan, outcome)
    print(as_text(plan, made, outcome))
    if options.out is not None:
        try:
            save(made, options.out)
        except OSError as error:
            print(f"proxyd-loadtest: cannot write {options.out}: {error.strerror}", file=sys.stderr)
            return COULD_NOT
    if not is_clean(made):
        return BAD
    return INTERRUPTED if outcome.interrupted else CLEAN


def plan_of(options: argparse.Namespace) -> Plan:
    """Raises UsageError."""
    targets = parse_targets(options.target)
    if options.volume is None and options.bulk is not None:
        raise UsageError("--bulk needs --volume PATH; virsh vol-list POOL shows what there is")
    uri = options.uri or (CALLS_URI if options.volume is None else BULK_URI)
    if options.connections * len(targets) > _MOST:
        raise UsageError(f"-c: {_MOST} connections are the most, to all targets together")
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
    )


def _add_amounts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--duration", type=amounts.duration, required=True, help="10s, 20m, 8h, behind …")
    add("--warmup", type=amounts.duration, help="… this (default: a tenth of it, 5m at most)")
    add("-c", "--connections", type=amounts.count, default=16, help="at a time, per target (16)")
    add("--seed", type=int, help="draw as an earlier run did; the report tells its seed")
    add(
        "--volume",
        metavar="PATH",
        help="also read from this one, in a running pool, and compare it with what the first"
        f" target says at the beginning; the URI is then {BULK_URI} unless --uri says otherwise",
    )
    add("--bulk", type=amounts.size, metavar="SIZE", help="so much of it (8MiB)")
    add(
        "--memory-slope",
        type=_slope,
        metavar="KIB",
        help="KiB per hour that a process may grow by; 4096 for runs of ten minutes or more, which"
        " shorter ones are not judged by; less than 1 MiB in all is no leak",
    )
    add(
        "--kept",
        type=_many,
        default=0,
        metavar="N",
        help="descriptors that a process may keep for later (0), beyond those that it had when half"
        " of the time was over",
    )
    add("--out", type=Path, metavar="FILE.json", help="write the result for `report` and `plot`")


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


def _check_writable(out: Path | None) -> None:
    """Before hours have passed; what is there is left alone."""
    if out is None:
        return
    try:
        with out.open("ab"):
            pass
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from error


@contextmanager
def _progress(plan: Plan) -> Iterator[Tell]:
    """A line on stderr for a person who waits; nothing where nobody looks."""
    console = Console(stderr=True)
    columns = (TextColumn("soak"), BarColumn(), TextColumn("{task.fields[told]}"))
    bar = Progress(
        *columns,
        console=console,
        auto_refresh=False,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=plan.duration_s, told="warm-up")
        bar.refresh()

        def tell(elapsed_s: float, soaked: list[Soaked]) -> None:
            entries = [one.ledger.entries for one in soaked]
            faults = sum(sum(one.ledger.faults.values()) for one in soaked)
            left = max(0, round(plan.duration_s - elapsed_s))
            told = (
                f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} to go,"
                f" {sum(each.sessions for each in entries)} sessions,"
                f" {sum(each.answered for each in entries)} calls, {faults} faults"
            )
            bar.update(task, completed=elapsed_s, told=told)
            bar.refresh()

        yield tell
