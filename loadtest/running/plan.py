"""What a run is asked for, and each worker's part of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

from ..client import Opening
from ..mix import Mix
from ..stages import Course
from ..targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What every target gets. `connections` are those that make calls; holding ones come on top."""

    course: Course  # calls per second; of the closed model: connections
    mix: Mix
    connections: int
    closed: bool = False
    anew: bool = False  # a new session for each call
    poisson: bool = False  # arrivals at random, at that rate in the mean
    warmup_s: float = 0.0
    interval_s: float = 1.0
    volumes: tuple[str, ...] = ()  # of transfers; each worker has one of them

    @property
    def intervals(self) -> int:
        """How many there are; the last one may be shorter."""
        return max(1, -int(-self.course.length_s // self.interval_s))


@dataclass(frozen=True, slots=True)
class Part:
    """Which worker of a target this is, of how many."""

    place: int
    workers: int

    def share(self, number: int) -> int:
        """Of things that cannot be cut; all shares together are all of them."""
        return (number + self.workers - 1 - self.place) // self.workers

    def one_of(self, volumes: tuple[str, ...]) -> str | None:
        """Whose transfers this worker makes; libvirt lets one client at a time write to each."""
        return volumes[self.place % len(volumes)] if volumes else None

    def counts(self, poisson: bool) -> Iterator[float]:
        """Which of a target's arrivals are ours, counted from 0 at the beginning."""
        if not poisson:
            # Turn by turn, so that all workers together are as even as one.
            return (number + 0.5 for number in count(self.place, self.workers))
        return self._random_counts()

    def _random_counts(self) -> Iterator[float]:
        # A random stream for each worker: together they are one again.
        draw = Random(self.place).expovariate  # noqa: S311 (nothing secret is drawn)
        reached = 0.0
        while True:
            reached += draw(1.0) * self.workers
            yield reached


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is started with."""

    target: Target
    opening: Opening
    load: Load
    part: Part
