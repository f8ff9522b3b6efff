"""The command line: arguments become values, values go to a scenario, figures to the report.

Exit statuses: 0 measured, 1 a target failed, 2 the command line makes no sense, 130 interrupted.
"""

import argparse
import os
import sys
from typing import Final, NoReturn

from loadtest.client import Opening
from loadtest.failures import TargetFailure, UsageError
from loadtest.machine import this_machine
from loadtest.procedures import SMALL_CALLS, procedure_number
from loadtest.progress import progress
from loadtest.report import Report, as_json, as_text
from loadtest.scenarios import compare
from loadtest.targets import parse_targets

OK: Final = 0
TARGET_FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

_TARGET_HELP = (
    "NAME=unix:/PATH[,pid=N[+N…]][,LABEL=N…][,uri=URI]; the first target is what the others are"
    " compared with"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main(argv: list[str] | None = None) -> int:
    """Runs one scenario and returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _compare(_parser().parse_args(arguments), arguments)
    except SystemExit as ended:  # argparse's own way out of --help
        return int(ended.code or OK)
    except UsageError as error:
        return _complain(str(error), USAGE)
    except TargetFailure as failure:
        return _complain(str(failure), TARGET_FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # `| head` has seen enough; what is left in the buffer must not complain at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _complain(line: str, status: int) -> int:
    print(f"proxyd-loadtest: {line}", file=sys.stderr)
    return status


def _compare(options: argparse.Namespace, arguments: list[str]) -> int:
    plan = compare.Plan(
        targets=parse_targets(options.target),
        procedure=procedure_number(options.procedure),
        opening=Opening(options.uri, options.readonly, options.timeout),
        rounds=options.rounds,
        warmup=options.warmup,
        connections=options.connections,
        calls=options.calls,
        slices=options.slices,
        slice_s=options.slice,
    )
    machine = this_machine(arguments)
    with progress("compare", plan.steps) as step:
        figures = compare.run(plan, step)
    report = Report(machine, plan, options.procedure, figures)
    print(as_json(report) if options.json else as_text(report))
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="proxyd-loadtest", description=__doc__.partition("\n")[0])
    scenarios = parser.add_subparsers(metavar="SCENARIO", required=True)
    _add_compare(scenarios.add_parser("compare", help="the same small call to several targets"))
    return parser


def _add_compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", action="append", required=True, help=_TARGET_HELP)
    add("--procedure", default="CONNECT_GET_LIB_VERSION", help=f"one of {', '.join(SMALL_CALLS)}")
    add("--uri", default="test:///default", help="for targets without a uri= of their own")
    add("--readonly", action="store_true", help="open the connections read-only")
    add("--rounds", type=_count, default=3, help="what the spread is taken over")
    add("--warmup", type=_count, default=200, help="unmeasured calls per target")
    add("-c", "--connections", type=_count, default=1, help="per target; above 1: throughput")
    add("--calls", type=_count, default=2000, help="per target and round, with one connection")
    add("--slice", type=_seconds, default=0.1, help="seconds, with several connections")
    add("--slices", type=_count, default=20, help="per target and round")
    add("--timeout", type=_seconds, default=10.0, help="seconds that any one wait may last")
    add("--json", action="store_true", help="one JSON document with every figure")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 3600:  # a smaller one would round to "no deadline" in the kernel
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.001 to 3600")
    return seconds
