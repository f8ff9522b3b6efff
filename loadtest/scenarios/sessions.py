"""Sessions: new ones per second, and what each costs, target beside target.

One target at a time opens and closes sessions for a slice, and the slices alternate in an order
that is drawn anew each time. Also with one session at a time: what a server does after the last
goodbye would otherwise be charged to whoever comes next, and here that is one session per slice.
"""

from contextlib import ExitStack
from dataclasses import dataclass

from ..client import Opening
from ..figures import TargetFigures
from ..targets import Target
from ..turns import SessionOrder, Turn
from .lanes import Step, busy_lanes, no_collections, take_turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run needs to know."""

    targets: tuple[Target, ...]
    opening: Opening
    rounds: int = 3
    warmup: int = 20  # sessions per target that nobody counts
    connections: int = 1  # at a time
    # Per target and round. Longer slices than those of calls: a TLS session takes 10 ms, and at
    # the end of a slice the last ones are alone.
    slices: int = 5
    slice_s: float = 0.4

    @property
    def steps(self) -> int:
        """How often `run` will call its `step`."""
        return self.rounds * self.slices


def run(plan: Plan, step: Step) -> list[TargetFigures]:
    """Raises TargetFailure at the first thing that a target does not do."""
    with ExitStack() as cleanup:
        cleanup.enter_context(no_collections())
        lanes = busy_lanes(
            [SessionOrder(target, plan.opening, plan.connections) for target in plan.targets],
            cleanup,
        )
        for lane in lanes:
            lane.open()
        for lane in lanes:
            lane.generator.work(Turn(0, least=plan.warmup))
        turn = Turn(int(plan.slice_s * 1e9))
        return take_turns(lanes, rounds=plan.rounds, slices=plan.slices, turn=turn, step=step)
