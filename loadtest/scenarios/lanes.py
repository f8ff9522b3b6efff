"""What the scenarios share: one lane per target, and fair turns between them."""

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from ..figures import Round, TargetFigures, Work
from ..generator_process import GeneratorProcess
from ..processes import Meter, spent
from ..targets import Target
from ..turns import Order, Turn

Step = Callable[[], None]  # told after each step, for whoever shows progress


@dataclass(frozen=True, slots=True)
class BusyLane:
    """A target with a generator that keeps it busy."""

    figures: TargetFigures
    meter: Meter
    generator: GeneratorProcess

    def open(self) -> None:
        self.figures.cipher = self.generator.open()

    def slice(self, turn: Turn) -> None:
        cpu = self.meter.read()
        done = self.generator.work(turn)
        cpu_ns = spent(cpu, self.meter.read())
        samples = done.samples()
        this_round = self.figures.rounds[-1]
        this_round.latencies.record(samples)
        this_round.add(Work(len(samples), done.elapsed_ns, done.cpu_ns, cpu_ns))


def busy_lanes(orders: list[Order], cleanup: ExitStack) -> list[BusyLane]:
    """Lanes whose generators have started and opened nothing yet."""
    lanes = []
    for order in orders:
        meter = meter_of(order.target)
        generator = cleanup.enter_context(closing(GeneratorProcess(order)))
        lanes.append(BusyLane(TargetFigures(order.target), meter, generator))
    for lane in lanes:
        lane.generator.wait_until_started()
    return lanes


def take_turns(
    lanes: list[BusyLane], *, rounds: int, slices: int, turn: Turn, step: Step
) -> list[TargetFigures]:
    """One lane at a time works for a slice; at once they would compete for the same cores."""
    drawn = orders(len(lanes))
    for _ in range(rounds):
        for lane in lanes:
            lane.figures.rounds.append(Round())
        for _ in range(slices):
            for place in next(drawn):
                lanes[place].slice(turn)
            step()
    for lane in lanes:
        lane.figures.standings = lane.meter.standings()
    return [lane.figures for lane in lanes]


def meter_of(target: Target) -> Meter:
    meter = Meter(target)
    meter.standings()  # a wrong process id is told now and not after the first round
    return meter


def orders(count: int) -> Iterator[list[int]]:
    """Endlessly, in which order the lanes come next."""
    # The same in every run. Rotation would not do: with it each target always follows the
    # same neighbour.
    draw = random.Random(1)  # noqa: S311 (nothing secret is drawn)
    while True:
        yield draw.sample(range(count), count)


@contextmanager
def no_collections() -> Iterator[None]:
    """No garbage collection in the middle of a measured call."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
