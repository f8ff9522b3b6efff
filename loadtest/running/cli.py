"""`run` from its options to its exit status.

Exit statuses: 0 measured, 1 nothing works at all or the file cannot be written, 99 a threshold is
missed.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from loadtest import results, run_options
from loadtest.failures import UsageError
from loadtest.machine import this_machine
from loadtest.progress import live
from loadtest.running.run import run
from loadtest.showing.text import as_text

OK: Final = 0
FAILED: Final = 1
MISSED: Final = 99


def add_parsers(subparsers: Any) -> None:
    """Adds `run` to the scenarios."""
    run_options.add_parser(subparsers).set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Raises UsageError and TargetFailure."""
    machine = this_machine(options.arguments)
    plan = run_options.plan_of(options, machine.cores)
    _check_writable(options.out)
    with live([target.name for target in plan.targets]) as watch:
        result = run(plan, machine, watch)
    print(results.as_text(result) if options.json else as_text(result))
    if options.out is not None:
        try:
            results.save(result, options.out)
        except OSError as error:
            print(f"proxyd-loadtest: cannot write {options.out}: {error.strerror}", file=sys.stderr)
            return FAILED
    return OK if all(verdict.met for verdict in result.verdicts) else MISSED


def _check_writable(out: Path | None) -> None:
    """Before the run; what is there is left alone."""
    if out is None:
        return
    try:
        with out.open("ab"):
            pass
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from error
