"""`run` from its options to its exit status."""

import argparse
from dataclasses import replace
from typing import Any

from .. import results, run_options
from ..machine import this_machine
from ..progress import live
from ..serving import settled
from ..showing.text import as_text
from ..statuses import INTERRUPTED, MISSED, OK
from .run import run


def add_parsers(subparsers: Any) -> None:
    """Adds `run` to the scenarios."""
    run_options.add_parser(subparsers).set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Raises UsageError, TargetFailure and NotKept; OK, MISSED or INTERRUPTED."""
    machine = this_machine(options.arguments)
    plan = run_options.plan_of(options, machine.cores)
    opening = settled(plan.targets, plan.opening, given=options.uri is not None)
    plan = replace(plan, opening=opening, told={**plan.told, "uri": opening.uri})
    results.check_writable(options.out)
    with live([target.name for target in plan.targets]) as watch:
        result = run(plan, machine, watch)
    print(results.as_text(result) if options.json else as_text(result))
    results.save(result, options.out)
    if result.plan["interrupted"]:
        return INTERRUPTED
    return OK if all(verdict.met for verdict in result.verdicts) else MISSED
