"""`run` from its options to its exit status."""

import argparse
from typing import Any

from loadtest import results, run_options
from loadtest.machine import this_machine
from loadtest.progress import live
from loadtest.running.run import run
from loadtest.showing.text import as_text
from loadtest.statuses import INTERRUPTED, MISSED, OK


def add_parsers(subparsers: Any) -> None:
    """Adds `run` to the scenarios."""
    run_options.add_parser(subparsers).set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Raises UsageError, TargetFailure and NotKept; OK, MISSED or INTERRUPTED."""
    machine = this_machine(options.arguments)
    plan = run_options.plan_of(options, machine.cores)
    results.check_writable(options.out)
    with live([target.name for target in plan.targets]) as watch:
        result = run(plan, machine, watch)
    print(results.as_text(result) if options.json else as_text(result))
    results.save(result, options.out)
    if result.plan["interrupted"]:
        return INTERRUPTED
    return OK if all(verdict.met for verdict in result.verdicts) else MISSED
