"""The run: asking what there is, a warm-up, the soak itself, and the silence at its end.

Each connection is a thread that visits the target again and again. That is no engine for high
rates, and need not be: what is looked for shows by the variety of what happens, not by its speed.
"""

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import count
from time import monotonic, process_time
from typing import Final

from ..client import Opening, open_session
from ..failures import TargetFailure
from ..figures import Latencies
from ..processes import Meter, Standing, spent
from ..results import Interval
from ..targets import Target
from ..transfer import find_volume
from .conversation import Conversation, Ended
from .ledger import Fault, Latest, Ledger
from .questions import Repertoire, Session, probe
from .visits import Place, Visit
from .volume import BLOCK, Digester, Reference
from .watch import Watched

_TICK_S: Final = 1.0
_INTERVALS: Final = 600  # at most, so that a result of days is no larger than one of minutes
_SETTLE_S: Final = 15.0  # how long the last sessions may take to be gone from a server
_SETTLE_TICK_S: Final = 0.1
_QUIET_TICKS: Final = 10
_FIRST_WAIT_S: Final = 60.0  # a server may put its capabilities together for the first time
_BACK_OFF_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run needs to know."""

    targets: tuple[Target, ...]
    opening: Opening
    seed: int
    connections: int
    duration_s: float
    warmup_s: float
    volume: str | None = None
    size: int = 0  # bytes of it, whole blocks
    memory_slope_kib_h: float | None = None  # None: in so short a run nobody judges it
    kept: int = 0  # descriptors that a process may keep for later
    gentle: frozenset[str] = frozenset()  # names of targets whose clients do not die in the midst
    memory_growth_kib: int = 1024  # less than this over the whole run is no leak


@dataclass(slots=True)
class Soaked:
    """A target, and all that became known of it."""

    target: Target
    meter: Meter
    place: Place
    ledger: Ledger = field(default_factory=Ledger)
    cipher: str | None = None
    calls: Latencies = field(default_factory=Latencies)
    connects: Latencies = field(default_factory=Latencies)
    intervals: list[Interval] = field(default_factory=list)
    watched: list[Watched] = field(default_factory=list)
    cpu_ns: dict[str, int] = field(default_factory=dict)  # by label, after the warm-up
    gone: str | None = None  # which process, if one is


@dataclass(frozen=True, slots=True)
class Outcome:
    soaked: list[Soaked]
    elapsed_s: float  # without the warm-up
    tool_cpu_s: float
    interrupted: bool


Tell = Callable[[float, list[Soaked]], None]  # seconds so far; once per second


def run(plan: Plan, tell: Tell) -> Outcome:
    """Raises TargetFailure if it cannot begin; what happens later is in the ledgers."""
    stop = threading.Event()
    soaked = _prepared(plan, stop)
    numbers = count(1)
    crowd = _Crowd(plan, soaked, stop, numbers)
    if not crowd.stay(plan.warmup_s, lambda: None):
        return Outcome(soaked, 0.0, 0.0, interrupted=True)
    for one in soaked:
        one.ledger.latest()  # the figures begin behind the warm-up, the account does not
        one.watched = [Watched(at, at, at) for at in _settled(one, None)]
    cpu, tool_cpu, began = [one.meter.read() for one in soaked], process_time(), monotonic()
    length_s = max(_TICK_S, plan.duration_s / _INTERVALS)
    books = [_Book(one, length_s) for one in soaked]

    def tick() -> None:
        elapsed_s = monotonic() - began
        for one, book in zip(soaked, books, strict=True):
            _sample(one, elapsed_s)
            book.turn(elapsed_s)
        tell(elapsed_s, soaked)

    finished = crowd.stay(plan.duration_s / 2, tick)
    if finished:
        for one in soaked:
            _stop_for_a_moment(one)
        finished = crowd.stay(plan.duration_s / 2, tick)
    elapsed_s = monotonic() - began
    tool_cpu = process_time() - tool_cpu
    for one, book, before in zip(soaked, books, cpu, strict=True):
        book.close(elapsed_s)
        _close(one, before, plan.kept)
    return Outcome(soaked, elapsed_s, tool_cpu, interrupted=not finished)


class _Crowd:
    """All connections to all targets."""

    def __init__(
        self, plan: Plan, soaked: list[Soaked], stop: threading.Event, numbers: "count[int]"
    ) -> None:
        self._plan, self._soaked, self._stop, self._numbers = plan, soaked, stop, numbers
        self._stays = 0
        self._run = random.Random(f"{plan.seed} run").getrandbits(32)  # noqa: S311

    def stay(self, duration_s: float, tick: Callable[[], None]) -> bool:
        """Visits until the time is over, and returns when the last visit has ended.

        False if somebody pressed Ctrl-C.
        """
        self._stop.clear()
        self._stays += 1
        plan = self._plan
        with ThreadPoolExecutor(plan.connections * len(self._soaked)) as threads:
            visiting = [
                threads.submit(self._visit_again_and_again, one, f"{self._stays} {place}")
                for one in self._soaked
                for place in range(plan.connections)
            ]
            try:
                self._wait(duration_s, tick, visiting)
            except KeyboardInterrupt:
                return False
            else:
                return True
            finally:
                self._stop.set()
                for each in visiting:
                    each.result()  # a mistake of our own comes out here

    def _wait(
        self, duration_s: float, tick: Callable[[], None], visiting: list["Future[None]"]
    ) -> None:
        began = monotonic()
        pause = threading.Event()  # never set
        while (left := began + duration_s - monotonic()) > 0:
            if any(one.gone for one in self._soaked):
                return  # there is nothing to wait for
            pause.wait(min(left, _TICK_S))
            if any(each.done() for each in visiting):
                return  # by a mistake of our own, which comes out behind this
            tick()

    def _visit_again_and_again(self, one: Soaked, what: str) -> None:
        rng = random.Random(f"{self._plan.seed} {what}")  # noqa: S311 (nothing secret is drawn)
        while not self._stop.is_set():
            if not self._visit(one, rng):
                self._stop.wait(_BACK_OFF_S)

    def _visit(self, one: Soaked, rng: random.Random) -> bool:
        """False if the target did not let us in."""
        session = Session(self._run, next(self._numbers))
        try:
            talk = Conversation(one.target, self._plan.opening, session, one.ledger)
        except TargetFailure as failure:
            one.ledger.fault(Fault.REFUSED, str(failure))
            return False
        try:
            Visit(one.place, talk, rng).run()
        except Ended:
            talk.give_up()
        except TargetFailure as failure:
            one.ledger.fault(Fault.REFUSED, f"session {session.number}: {failure}")
            talk.give_up()
            return False
        return True


class _Book:
    """The figures over time, an interval at a time."""

    def __init__(self, soaked: Soaked, length_s: float) -> None:
        self._soaked, self._length_s = soaked, length_s
        self._began_s = 0.0
        self._calls = Latencies()
        self._interval = Interval(begins_s=0.0, length_s=0.0)

    def turn(self, elapsed_s: float) -> None:
        """What came since the last time; it is a new interval when this one is full."""
        self._take(self._soaked.ledger.latest())
        if elapsed_s - self._began_s >= self._length_s - _TICK_S / 2:
            self._finish(elapsed_s)

    def close(self, elapsed_s: float) -> None:
        self._take(self._soaked.ledger.latest())
        if self._interval.calls or elapsed_s > self._began_s:
            self._finish(elapsed_s)

    def _take(self, latest: Latest) -> None:
        soaked, interval = self._soaked, self._interval
        self._calls.record(latest.calls)
        soaked.calls.record(latest.calls)
        soaked.connects.record(latest.connects)
        interval.calls += latest.entries.answered
        interval.connects += len(latest.connects)
        interval.bytes_up += latest.entries.bytes_up
        interval.bytes_down += latest.entries.bytes_down
        for name, many in latest.faults.items():
            interval.errors[name] = interval.errors.get(name, 0) + many

    def _finish(self, elapsed_s: float) -> None:
        interval, calls = self._interval, self._calls
        interval.length_s = elapsed_s - self._began_s
        if calls.count:
            interval.p50_ns, interval.p99_ns = calls.percentile(50), calls.percentile(99)
            interval.max_ns = calls.highest
        self._soaked.intervals.append(interval)
        self._began_s = elapsed_s
        self._interval = Interval(begins_s=elapsed_s, length_s=0.0)
        self._calls = Latencies()


def _prepared(plan: Plan, stop: threading.Event) -> list[Soaked]:
    """Each target with what it can be asked; the volume's content is what the first one says."""
    blocks: list[bytes] = []
    soaked = []
    for target in plan.targets:
        meter = Meter(target)
        meter.standings()  # a wrong process id is told now
        repertoire, cipher = _probed(plan, target)
        reference = _reference(plan, target, blocks)
        place = Place(repertoire, reference, stop, gentle=target.name in plan.gentle)
        one = Soaked(target, meter, place, cipher=cipher)
        soaked.append(one)
        if reference is not None:
            blocks = reference.blocks
    return soaked


def _probed(plan: Plan, target: Target) -> tuple[Repertoire, str | None]:
    patient = replace(plan.opening, wait_s=max(_FIRST_WAIT_S, plan.opening.wait_s))
    session = Session(run=0, number=0)
    with closing(Conversation(target, patient, session, Ledger())) as talk:
        talk.open(Repertoire((), {}))
        try:
            repertoire = probe(talk.ask, session)
        except Ended as ended:
            reason = f"while it was asked what it knows: {ended}"
            raise TargetFailure(target.name, reason) from ended
        if not repertoire.lookups:
            reason = "no error of it quotes the name that was asked for, so no reply can be checked"
            raise TargetFailure(target.name, reason)
        return repertoire, talk.cipher


def _reference(plan: Plan, target: Target, blocks: list[bytes]) -> Reference | None:
    if plan.volume is None:
        return None
    with closing(open_session(target, plan.opening)) as session:
        volume = find_volume(session, plan.volume, plan.size)
    many = plan.size // BLOCK
    if not blocks:
        with closing(Conversation(target, plan.opening, Session(0, 0), Ledger())) as talk:
            talk.open(Repertoire((), {}))
            blocks = _read(target, talk, volume, many)
    return Reference(volume, blocks)


def _read(target: Target, talk: Conversation, volume: bytes, many: int) -> list[bytes]:
    found = Digester()
    try:
        for _ in talk.download(volume, 0, many, found):
            pass
    except Ended as ended:
        raise TargetFailure(target.name, f"while its volume was read: {ended}") from ended
    if len(found.digests) != many:
        raise TargetFailure(target.name, f"its volume ended after {found.moved} bytes")
    return found.digests


def _settled(one: Soaked, allowed: list[int] | None) -> list[Standing]:
    """The processes when nobody is there any more: so few descriptors, or no change."""
    if not one.target.groups:
        return []
    pause, deadline = threading.Event(), monotonic() + _SETTLE_S
    seen: list[list[int | None]] = []
    while True:
        standings = one.meter.standings()
        seen.append([each.descriptors for each in standings])
        if allowed is None:
            latest = seen[-_QUIET_TICKS:]
            quiet = len(latest) == _QUIET_TICKS and all(each == latest[0] for each in latest)
        else:
            quiet = all((now or 0) <= most for now, most in zip(seen[-1], allowed, strict=True))
        if quiet or monotonic() > deadline:
            return standings
        pause.wait(_SETTLE_TICK_S)


def _sample(one: Soaked, elapsed_s: float) -> None:
    try:
        for watched, now in zip(one.watched, one.meter.standings(), strict=True):
            watched.memory.add(elapsed_s, now.rss_kib)
    except TargetFailure as failure:
        one.gone = str(failure)


def _stop_for_a_moment(one: Soaked) -> None:
    """The half is over, and everybody is gone."""
    try:
        for watched, now in zip(one.watched, _settled(one, None), strict=True):
            watched.middle = watched.after = now
    except TargetFailure as failure:
        one.gone = str(failure)


def _close(one: Soaked, cpu_before: dict[str, int], kept: int) -> None:
    if one.gone:
        return
    try:
        one.cpu_ns = spent(cpu_before, one.meter.read())
        after = _settled(one, [watched.most + kept for watched in one.watched])
    except TargetFailure as failure:
        one.gone = str(failure)
        return
    for watched, now in zip(one.watched, after, strict=True):
        watched.after = now
