"""Bulk: one volume through the stream protocol, down or up, target beside target.

One transfer per target and round, in an order that is drawn anew for each round, each in a
session of its own that is opened and finds the volume before the clocks are read.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from time import perf_counter_ns, process_time_ns

from ..client import Opening, Session, open_session
from ..figures import Round, TargetFigures, Work
from ..processes import Meter, spent
from ..targets import Target
from ..transfer import download, find_volume, upload
from .lanes import Step, meter_of, no_collections, orders


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run needs to know."""

    targets: tuple[Target, ...]
    opening: Opening
    volume: str  # a path, as the storage driver knows it
    size: int  # bytes of it
    upload: bool = False  # which writes over the volume
    rounds: int = 3
    warmup: int = 1  # transfers per target that nobody counts: the first one finds a cold cache

    @property
    def steps(self) -> int:
        """How often `run` will call its `step`."""
        return (self.warmup + self.rounds) * len(self.targets)


@dataclass(frozen=True, slots=True)
class _Lane:
    figures: TargetFigures
    meter: Meter
    plan: Plan

    def transfer(self) -> Work:
        plan = self.plan
        with closing(open_session(self.figures.target, plan.opening)) as session:
            self.figures.cipher = session.cipher
            volume = find_volume(session, plan.volume, plan.size)
            move: Callable[[Session, bytes, int], None] = upload if plan.upload else download
            cpu, tool, began = self.meter.read(), process_time_ns(), perf_counter_ns()
            move(session, volume, plan.size)
            ended, tool_after = perf_counter_ns(), process_time_ns()
            return Work(1, ended - began, tool_after - tool, spent(cpu, self.meter.read()))


def run(plan: Plan, step: Step) -> list[TargetFigures]:
    """Raises TargetFailure at the first thing that a target does not do."""
    with ExitStack() as cleanup:
        cleanup.enter_context(no_collections())
        lanes = [_Lane(TargetFigures(target), meter_of(target), plan) for target in plan.targets]
        for _ in range(plan.warmup):
            for lane in lanes:
                lane.transfer()
                step()
        drawn = orders(len(lanes))
        for _ in range(plan.rounds):
            for place in next(drawn):
                done = Round()
                done.add(lanes[place].transfer())
                lanes[place].figures.rounds.append(done)
                step()
        for lane in lanes:
            lane.figures.standings = lane.meter.standings()
        return [lane.figures for lane in lanes]
