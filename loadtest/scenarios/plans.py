"""The kinds of measurement there are, as one type."""

from ..figures import TargetFigures
from . import bulk, compare, sessions
from .lanes import Step

Plan = compare.Plan | sessions.Plan | bulk.Plan


def run(plan: Plan, step: Step) -> list[TargetFigures]:
    """Measures; raises TargetFailure at the first thing that a target does not do."""
    match plan:
        case compare.Plan():
            return compare.run(plan, step)
        case sessions.Plan():
            return sessions.run(plan, step)
        case bulk.Plan():
            return bulk.run(plan, step)


def unit(plan: Plan) -> str:
    """What is counted and charged for."""
    match plan:
        case compare.Plan():
            return "call"
        case sessions.Plan():
            return "session"
        case bulk.Plan():
            return "transfer"
