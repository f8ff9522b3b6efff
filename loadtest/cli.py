"""The command line: its first word says who acts. How it ends is in `statuses`."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace

from . import options, statuses
from .document import as_json
from .failures import NotKept, TargetFailure, UsageError
from .limit import cli as limit
from .machine import this_machine
from .options import Parser
from .progress import progress
from .report import Report, as_text
from .results import check_writable, keep
from .running import cli as running
from .scenarios.plans import run
from .serving import settled
from .showing import cli as showing
from .soaking import cli as soaking
from .statuses import FAILED, INTERRUPTED, OK, USAGE


def main(argv: list[str] | None = None) -> int:
    """Does what one command line asks for and returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _act(arguments)
    except SystemExit as ended:  # argparse's own way out of --help
        return int(ended.code or OK)
    except UsageError as error:
        return _complain(str(error), USAGE)
    except (TargetFailure, NotKept) as failure:
        return _complain(str(failure), FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # `| head` has seen enough; what is left in the buffer must not complain at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _complain(line: str, status: int) -> int:
    print(f"proxyd-loadtest: {line}", file=sys.stderr)
    return status


def command_line() -> Parser:
    """All words that there are; who parses them is told by `act` what they come to."""
    parser = Parser(
        prog="proxyd-loadtest",
        description="What the proxy costs, how much it holds, and where it breaks.",
        epilog=statuses.TOLD,
    )
    scenarios = parser.add_subparsers(metavar="SCENARIO", required=True)
    options.add_parser(scenarios).set_defaults(act=_compare)
    for others in (limit, running, soaking, showing):
        others.add_parsers(scenarios)
    return parser


def _act(arguments: list[str]) -> int:
    asked = command_line().parse_args(arguments, argparse.Namespace(arguments=arguments))
    act: Callable[[argparse.Namespace], int] = asked.act
    return act(asked)


def _compare(asked: argparse.Namespace) -> int:
    plan = options.plan_of(asked)
    check_writable(asked.out)
    opening = settled(plan.targets, plan.opening, given=asked.uri is not None)
    plan = replace(plan, opening=opening)
    machine = this_machine(asked.arguments)
    with progress("compare", plan.steps) as step:
        figures = run(plan, step)
    report = Report(machine, plan, figures)
    text = as_json(report)
    keep(text, asked.out)
    print(text if asked.json else as_text(report))
    return OK
