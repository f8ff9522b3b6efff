"""Compare: the same small call to several targets, as close in time as can be.

One connection each: latency first, the calls interleaved in an order that is drawn anew each
time, so that no target always finds the caches that another one left. CPU cannot be told apart
in there (the targets alternate within microseconds, and often share a backend), so each round
goes on with blocks of calls to one target at a time, and around those the clocks are read.

Several connections each: one target at a time is kept busy for a slice, and the slices
alternate. At once they would compete for the same cores and say nothing about each other.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from time import perf_counter_ns, process_time_ns
from typing import Final

from ..client import Opening, Session, open_session
from ..figures import Round, TargetFigures, Work
from ..processes import Meter, spent
from ..targets import Target
from ..turns import CallOrder, Turn
from .lanes import (
    Step,
    busy_lanes,
    meter_of,
    no_collections,
    orders,
    take_turns,
)

BLOCKS: Final = 2  # per target and half round: enough to alternate, long enough to read clocks
LEAST_BLOCK: Final = 25  # calls; clocks read between two calls are wrong by one call at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run needs to know."""

    targets: tuple[Target, ...]
    procedure: int
    opening: Opening
    rounds: int = 3
    warmup: int = 200  # calls on what was just opened, which nobody counts
    connections: int = 1
    calls: int = 2000  # per target and round, with one connection
    # Per target and round, with several connections. Many short slices rather than few long
    # ones, so that what else runs on the machine meets all targets alike; still shorter ones
    # lose more to the end of each, where the last calls are waited for.
    slices: int = 20
    slice_s: float = 0.1

    @property
    def steps(self) -> int:
        """How often `run` will call its `step`."""
        if self.connections == 1:
            return self.rounds * 2 * (1 + BLOCKS)
        return self.rounds * self.slices


@dataclass(frozen=True, slots=True)
class _Single:
    """A target with one session, called from this process."""

    figures: TargetFigures
    meter: Meter
    session: Session

    def block(self, calls: int) -> Work:
        cpu, tool, began = self.meter.read(), process_time_ns(), perf_counter_ns()
        for _ in range(calls):
            self.session.round_trip()
        ended, tool_after = perf_counter_ns(), process_time_ns()
        return Work(calls, ended - began, tool_after - tool, spent(cpu, self.meter.read()))


def run(plan: Plan, step: Step) -> list[TargetFigures]:
    """Raises TargetFailure at the first thing that a target does not do."""
    with ExitStack() as cleanup:
        cleanup.enter_context(no_collections())
        if plan.connections == 1:
            return _interleave(plan, step)
        return _alternate(plan, step, cleanup)


def _interleave(plan: Plan, step: Step) -> list[TargetFigures]:
    figures = [TargetFigures(target) for target in plan.targets]
    drawn = orders(len(figures))
    for _ in range(plan.rounds):
        for one in figures:
            one.rounds.append(Round())
        # Half a round with the sessions opened in one order, half in the other: libvirtd beside
        # itself answered about 0.5 µs (1 %) sooner on the session that it got first.
        for calls, opened in zip(_halves(plan.calls), (figures, figures[::-1]), strict=True):
            with ExitStack() as cleanup:
                lanes = [_single(plan, one, cleanup) for one in opened]
                _half_a_round(lanes, drawn, calls, step)
    return figures


def _half_a_round(lanes: list[_Single], drawn: Iterator[list[int]], calls: int, step: Step) -> None:
    samples: list[list[int]] = [[] for _ in lanes]
    for _ in range(calls):
        for place in next(drawn):
            samples[place].append(lanes[place].session.round_trip())
    for lane, own in zip(lanes, samples, strict=True):
        lane.figures.rounds[-1].latencies.record(own)
    step()
    for _ in range(BLOCKS):
        for place in next(drawn):
            lanes[place].figures.rounds[-1].add(lanes[place].block(_block_calls(calls)))
        step()
    for lane in lanes:
        lane.figures.standings = lane.meter.standings()


def _halves(calls: int) -> tuple[int, int]:
    return calls - calls // 2, max(1, calls // 2)


def _block_calls(calls: int) -> int:
    return max(LEAST_BLOCK, calls // (2 * BLOCKS))


def _alternate(plan: Plan, step: Step, cleanup: ExitStack) -> list[TargetFigures]:
    lanes = busy_lanes(
        [CallOrder(target, plan.opening, plan.procedure) for target in plan.targets], cleanup
    )
    # In turn, and back: libvirtd beside itself made about 2 % more calls/s on the connections
    # that it got first (16 to each target, 13 of 16 runs, whichever was named or called first).
    # In turn the ratio came out as 1.005 on average over 16 runs (0.98..1.03).
    for number in range(plan.connections):
        for lane in lanes if number % 2 == 0 else reversed(lanes):
            lane.open()
    for lane in lanes:
        lane.generator.work(Turn(0, least=plan.warmup))
    turn = Turn(int(plan.slice_s * 1e9))
    return take_turns(lanes, rounds=plan.rounds, slices=plan.slices, turn=turn, step=step)


def _single(plan: Plan, figures: TargetFigures, cleanup: ExitStack) -> _Single:
    meter = meter_of(figures.target)
    session = cleanup.enter_context(closing(open_session(figures.target, plan.opening)))
    figures.cipher = session.cipher
    session.prepare(plan.procedure)
    for _ in range(plan.warmup):
        session.round_trip()
    return _Single(figures, meter, session)
