"""A whole run: workers are started, begin together, and what they send becomes a result."""

import multiprocessing.connection
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter_ns, process_time_ns
from typing import Any, Final

from ..client import Opening
from ..failures import TargetFailure
from ..machine import Machine
from ..processes import Meter, spent
from ..results import Interval, Result, TargetResult
from ..scenarios.lanes import meter_of
from ..targets import Target
from ..thresholds import Threshold, judge
from .crowding import Crowding
from .errors import UNSENT
from .gathering import Gathering
from .interruption import ctrl_c_asked_for
from .limits import tool_use
from .parcels import Done, Opened, Parcel
from .plan import Load, Order, Part
from .worker import Worker

# From the word to the beginning: a worker reads it in far less, and one that comes too late would
# be charged with it.
_HEAD_START_NS: Final = 100_000_000
_SILENCE_S: Final = 30.0  # beyond any wait of a worker, which sends a parcel every 50 ms

Watch = Callable[[str, Interval], None]  # told of each interval of each target


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run needs to know. `told` is what the options said, for the result."""

    targets: tuple[Target, ...]
    opening: Opening
    load: Load
    workers: int  # for each target, at most
    thresholds: tuple[Threshold, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Lane:
    """A target with its workers."""

    gathering: Gathering
    meter: Meter
    workers: tuple[Worker, ...]


def run(plan: Plan, machine: Machine, watch: Watch) -> Result:
    """Raises TargetFailure when nothing at all works at the start, or a worker dies.

    Ctrl-C ends it early, with what was measured so far; before that, it is KeyboardInterrupt.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with ExitStack() as cleanup:
        lanes = [_lane(plan, target, cleanup) for target in plan.targets]
        notes = _prepare(lanes)
        before = [lane.meter.standings() for lane in lanes]
        origin = perf_counter_ns() + _HEAD_START_NS + int(plan.load.warmup_s * 1e9)
        for lane in lanes:
            for worker in lane.workers:
                worker.begin(origin - int(plan.load.warmup_s * 1e9))
        _wait_until(origin, lanes)
        cpu, own = [lane.meter.read() for lane in lanes], process_time_ns()
        crowding = Crowding(plan.targets)
        with ctrl_c_asked_for() as is_stopped:
            interrupted = _gather(lanes, watch, is_stopped)
        own_s = (process_time_ns() - own) / 1e9
        for lane, early, used in zip(lanes, before, cpu, strict=True):
            now = spent(used, lane.meter.read())
            lane.gathering.finished(early, lane.meter.standings(), now)
        gatherings = [lane.gathering for lane in lanes]
        tool = tool_use(gatherings, own_s)
        notes += crowding.notes((perf_counter_ns() - origin) / 1e9, tool.cpu_s)
    targets = [gathering.result for gathering in gatherings]
    return Result(
        scenario="run",
        machine=machine,
        started=started,
        plan=plan.told | {"interrupted": interrupted},
        targets=targets,
        tool=tool,
        verdicts=judge(plan.thresholds, targets),
        notes=[*_early(plan, targets, interrupted), *notes, *_unsent(gatherings)],
    )


def _lane(plan: Plan, target: Target, cleanup: ExitStack) -> _Lane:
    meter = meter_of(target)
    number = min(plan.workers, plan.load.connections)
    orders = [
        Order(target, plan.opening, plan.load, Part(place, number)) for place in range(number)
    ]
    workers = tuple(cleanup.enter_context(closing(Worker(order))) for order in orders)
    return _Lane(Gathering(target, plan.opening, plan.load, number), meter, workers)


def _prepare(lanes: list[_Lane]) -> list[str]:
    """Waits for all connections. Returns what some could not; TargetFailure if none could."""
    failures: list[TargetFailure] = []
    for lane in lanes:
        opened = [worker.opened() for worker in lane.workers]
        for one in opened:
            lane.gathering.opened(one)
        reason = next((one.reason for one in opened if one.reason), "")
        if not any(one.connections for one in opened):
            failures.append(TargetFailure(lane.gathering.result.name, reason))
    if len(failures) == len(lanes):
        raise failures[0]
    return [f"{failure} (at the start, and the run went on)" for failure in failures]


def _wait_until(moment: int, lanes: list[_Lane]) -> None:
    """Nothing comes before it but news of a failure, which `_gather` reads again."""
    pipes = [worker.pipe for lane in lanes for worker in lane.workers]
    while (left := moment - perf_counter_ns()) > 0:
        if multiprocessing.connection.wait(pipes, left / 1e9):
            return


def _gather(lanes: list[_Lane], watch: Watch, is_stopped: Callable[[], bool]) -> bool:
    """Until all is there; whether that was earlier because somebody stopped it."""
    stopped = False
    sources = {
        worker.pipe: (lane.gathering, place, worker)
        for lane in lanes
        for place, worker in enumerate(lane.workers)
    }
    while sources:
        # What comes every 50 ms is enough of an occasion to ask.
        if not stopped and is_stopped():
            stopped = True
            for _, _, worker in sources.values():
                worker.stop()
        ready = multiprocessing.connection.wait(list(sources), _SILENCE_S)
        if not ready:
            gathering, _, _ = next(iter(sources.values()))
            raise TargetFailure(gathering.result.name, f"its worker is silent for {_SILENCE_S:g} s")
        for pipe in ready:
            gathering, place, worker = sources[pipe]  # type: ignore[index]
            match worker.receive():
                case Parcel() as parcel:
                    over = gathering.take(place, parcel)
                case Done() as done:
                    over = gathering.finish(place, done)
                    del sources[pipe]  # type: ignore[arg-type]
                case Opened():
                    raise AssertionError("a worker that opens twice")
            for interval in over:
                watch(gathering.result.name, interval)
    return stopped


def _early(plan: Plan, targets: list[TargetResult], interrupted: bool) -> list[str]:
    if not interrupted:
        return []
    measured_s = max(target.elapsed_s for target in targets)
    return [
        f"interrupted after {measured_s:.1f} s of {plan.load.course.length_s:g} s; of the calls"
        " that were under way then nothing is known"
    ]


def _unsent(gatherings: list[Gathering]) -> list[str]:
    numbers = ((one.result.name, one.result.errors.get(UNSENT, 0)) for one in gatherings)
    return [
        f"{name} did not hold the rate: {number} calls were due and could not be sent; the"
        " latencies are those of the others, and too low"
        for name, number in numbers
        if number
    ]
