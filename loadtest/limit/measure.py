"""Two orders of calls: each relay's in a row, and each alone between two of the daemon's own.

warm: a target is called so many times in a row, then another one. Of its code and of what it
works on nearly all is in the processor's caches.

cold: behind each call to the daemon itself comes one to one of the relays, in an order that is
drawn anew each time. What a relay needs has been displaced by the client's and the daemon's own
work since, as it is where calls are seldom. A relay is compared with the direct calls of the same
order.

Both in each round, one after the other: what disturbs a round disturbs all of its figures.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter_ns, process_time_ns

from ..client import Opening, Session, open_session
from ..figures import Round, TargetFigures, Work
from ..processes import Meter, spent
from ..scenarios.lanes import Step, meter_of, no_collections, orders
from ..targets import Protection, Target, TcpAddress


class Order(StrEnum):
    """How calls follow each other."""

    WARM = "warm"
    COLD = "cold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run needs to know."""

    direct: Target
    proxies: tuple[Target, ...]
    procedure: int
    opening: Opening
    rounds: int = 10
    warmup: int = 200  # calls on what was just opened, which nobody counts
    calls: int = 1000  # per target, order and round
    row: int = 25  # warm: how many calls follow each other

    @property
    def kinds(self) -> set[bool]:
        """Which bare relays are needed: whether they speak TLS."""
        return {speaks_tls(one) for one in self.proxies}

    @property
    def steps(self) -> int:
        """How often `run` will call its `step`."""
        return self.rounds


def speaks_tls(target: Target) -> bool:
    """Else it is a UNIX socket: the command line sees to it."""
    return isinstance(target.address, TcpAddress) and target.address.protection is Protection.TLS


@dataclass(slots=True)
class Entrant:
    """Someone whose calls are timed, and the figures of both orders."""

    target: Target
    opening: Opening
    warm: TargetFigures = field(init=False)
    cold: TargetFigures = field(init=False)

    def __post_init__(self) -> None:
        self.warm, self.cold = TargetFigures(self.target), TargetFigures(self.target)

    def figures(self, order: Order) -> TargetFigures:
        return self.warm if order is Order.WARM else self.cold


@dataclass(frozen=True, slots=True)
class _Lane:
    """An entrant with a session, called from this process."""

    entrant: Entrant
    meter: Meter
    session: Session

    def row(self, calls: int, samples: list[int]) -> None:
        cpu, tool, began = self.meter.read(), process_time_ns(), perf_counter_ns()
        for _ in range(calls):
            samples.append(self.session.round_trip())  # noqa: PERF401 (the same as in `_cold`)
        ended, tool_after = perf_counter_ns(), process_time_ns()
        work = Work(calls, ended - began, tool_after - tool, spent(cpu, self.meter.read()))
        self.entrant.warm.rounds[-1].add(work)


def run(plan: Plan, entrants: Sequence[Entrant], step: Step) -> None:
    """The first of them is the daemon itself. Raises TargetFailure."""
    with ExitStack() as cleanup:
        cleanup.enter_context(no_collections())
        drawn, among_relays = orders(len(entrants)), orders(len(entrants) - 1)
        for _ in range(plan.rounds):
            for one in entrants:
                one.warm.rounds.append(Round())
                one.cold.rounds.append(Round())
            # As compare does it: the session that libvirtd got first is answered a bit sooner.
            for opened in (entrants, entrants[::-1]):
                with ExitStack() as sessions:
                    made = {one.target.name: _lane(plan, one, sessions) for one in opened}
                    lanes = [made[one.target.name] for one in entrants]
                    _warm(lanes, drawn, plan)
                    _cold(lanes, among_relays, plan)
                    for lane in lanes:
                        lane.entrant.warm.standings = lane.meter.standings()
                step()


def _lane(plan: Plan, entrant: Entrant, cleanup: ExitStack) -> _Lane:
    session = cleanup.enter_context(closing(open_session(entrant.target, entrant.opening)))
    entrant.warm.cipher = entrant.cold.cipher = session.cipher
    session.prepare(plan.procedure)
    for _ in range(plan.warmup):
        session.round_trip()
    return _Lane(entrant, meter_of(entrant.target), session)


def _half(plan: Plan) -> int:
    return -(-plan.calls // 2)


def _warm(lanes: list[_Lane], drawn: Iterator[list[int]], plan: Plan) -> None:
    samples: list[list[int]] = [[] for _ in lanes]
    for _ in range(-(-_half(plan) // plan.row)):
        for place in next(drawn):
            lanes[place].row(plan.row, samples[place])
    for lane, found in zip(lanes, samples, strict=True):
        lane.entrant.warm.rounds[-1].latencies.record(found)


def _cold(lanes: list[_Lane], drawn: Iterator[list[int]], plan: Plan) -> None:
    direct, *relays = lanes
    samples: list[list[int]] = [[] for _ in lanes]
    own, *others = samples
    for _ in range(_half(plan)):
        for place in next(drawn):
            own.append(direct.session.round_trip())
            others[place].append(relays[place].session.round_trip())
    for lane, found in zip(lanes, samples, strict=True):
        lane.entrant.cold.rounds[-1].latencies.record(found)
