"""Compare: the same small call to several targets, as close in time as can be.

One connection each: latency first, the calls interleaved in an order that is drawn anew each
time, so that no target always finds the caches that another one left. CPU cannot be told apart
in there (the targets alternate within microseconds, and often share a backend), so each round
goes on with blocks of calls to one target at a time, and around those the clocks are read.

Several connections each: one target at a time is kept busy for a slice, and the slices
alternate. At once they would compete for the same cores and say nothing about each other.
"""

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from time import perf_counter_ns, process_time_ns
from typing import Final

from loadtest.client import Opening, Session
from loadtest.figures import Round, TargetFigures, Work
from loadtest.generator import GeneratorProcess, Order, Turn
from loadtest.processes import Meter, spent
from loadtest.targets import Target

BLOCKS: Final = 2  # per target and half round: enough to alternate, long enough to read clocks
LEAST_BLOCK: Final = 25  # calls; clocks read between two calls are wrong by one call at most

Step = Callable[[], None]  # told after each step, for whoever shows progress


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


@dataclass(frozen=True, slots=True)
class _Busy:
    """A target with a generator that keeps its connections busy."""

    figures: TargetFigures
    meter: Meter
    generator: GeneratorProcess

    def slice(self, turn: Turn) -> None:
        cpu = self.meter.read()
        done = self.generator.work(turn)
        cpu_ns = spent(cpu, self.meter.read())
        samples = done.samples()
        this_round = self.figures.rounds[-1]
        this_round.latencies.record(samples)
        this_round.add(Work(len(samples), done.elapsed_ns, done.cpu_ns, cpu_ns))


def run(plan: Plan, step: Step) -> list[TargetFigures]:
    """Raises TargetFailure at the first thing that a target does not do."""
    with ExitStack() as cleanup:
        cleanup.enter_context(_no_collections())
        if plan.connections == 1:
            return _interleave(plan, step)
        return _alternate(plan, step, cleanup)


def _interleave(plan: Plan, step: Step) -> list[TargetFigures]:
    figures = [TargetFigures(target) for target in plan.targets]
    orders = _orders(len(figures))
    for _ in range(plan.rounds):
        for one in figures:
            one.rounds.append(Round())
        # Half a round with the sessions opened in one order, half in the other: libvirtd beside
        # itself answered about 0.5 µs (1 %) sooner on the session that it got first.
        for calls, opened in zip(_halves(plan.calls), (figures, figures[::-1]), strict=True):
            with ExitStack() as cleanup:
                lanes = [_single(plan, one, cleanup) for one in opened]
                _half_a_round(lanes, orders, calls, step)
    return figures


def _half_a_round(
    lanes: list[_Single], orders: Iterator[list[int]], calls: int, step: Step
) -> None:
    samples: list[list[int]] = [[] for _ in lanes]
    for _ in range(calls):
        for place in next(orders):
            samples[place].append(lanes[place].session.round_trip())
    for lane, own in zip(lanes, samples, strict=True):
        lane.figures.rounds[-1].latencies.record(own)
    step()
    for _ in range(BLOCKS):
        for place in next(orders):
            lanes[place].figures.rounds[-1].add(lanes[place].block(_block_calls(calls)))
        step()
    for lane in lanes:
        lane.figures.standings = lane.meter.standings()


def _halves(calls: int) -> tuple[int, int]:
    return calls - calls // 2, max(1, calls // 2)


def _block_calls(calls: int) -> int:
    return max(LEAST_BLOCK, calls // (2 * BLOCKS))


def _alternate(plan: Plan, step: Step, cleanup: ExitStack) -> list[TargetFigures]:
    lanes = [_busy(plan, target, cleanup) for target in plan.targets]
    for lane in lanes:
        lane.generator.wait_until_started()
    # In turn, and back: libvirtd beside itself made about 2 % more calls/s on the connections
    # that it got first (16 to each target, 13 of 16 runs, whichever was named or called first).
    # In turn the ratio came out as 1.005 on average over 16 runs (0.98..1.03).
    for number in range(plan.connections):
        for lane in lanes if number % 2 == 0 else reversed(lanes):
            lane.generator.open()
    for lane in lanes:
        lane.generator.work(Turn(0, least_calls=plan.warmup))
    orders, turn = _orders(len(lanes)), Turn(int(plan.slice_s * 1e9))
    for _ in range(plan.rounds):
        for lane in lanes:
            lane.figures.rounds.append(Round())
        for _ in range(plan.slices):
            for place in next(orders):
                lanes[place].slice(turn)
            step()
    for lane in lanes:
        lane.figures.standings = lane.meter.standings()
    return [lane.figures for lane in lanes]


def _single(plan: Plan, figures: TargetFigures, cleanup: ExitStack) -> _Single:
    meter = _meter(figures.target)
    session = cleanup.enter_context(closing(Session(figures.target, plan.opening)))
    session.prepare(plan.procedure)
    for _ in range(plan.warmup):
        session.round_trip()
    return _Single(figures, meter, session)


def _busy(plan: Plan, target: Target, cleanup: ExitStack) -> _Busy:
    order = Order(target, plan.opening, plan.procedure)
    generator = cleanup.enter_context(closing(GeneratorProcess(order)))
    return _Busy(TargetFigures(target), _meter(target), generator)


def _meter(target: Target) -> Meter:
    meter = Meter(target)
    meter.standings()  # a wrong process id is told now and not after the first round
    return meter


def _orders(count: int) -> Iterator[list[int]]:
    # The same in every run. Rotation would not do: with it each target always follows the
    # same neighbour.
    draw = random.Random(1)  # noqa: S311 (nothing secret is drawn)
    while True:
        yield draw.sample(range(count), count)


@contextmanager
def _no_collections() -> Iterator[None]:
    """No garbage collection in the middle of a measured call."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
