"""The command line: arguments become a plan, the plan goes to its scenario, figures to the report.

Exit statuses: 0 measured, 1 a target failed, 2 the command line makes no sense, 130 interrupted.
"""

import os
import sys
from typing import Final

from loadtest.document import as_json
from loadtest.failures import TargetFailure, UsageError
from loadtest.machine import this_machine
from loadtest.options import parse_plan
from loadtest.progress import progress
from loadtest.report import Report, as_text
from loadtest.scenarios.plans import run

OK: Final = 0
TARGET_FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


def main(argv: list[str] | None = None) -> int:
    """Runs one scenario and returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _measure(arguments)
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


def _measure(arguments: list[str]) -> int:
    plan, wants_json = parse_plan(arguments)
    machine = this_machine(arguments)
    with progress("compare", plan.steps) as step:
        figures = run(plan, step)
    report = Report(machine, plan, figures)
    print(as_json(report) if wants_json else as_text(report))
    return OK
