"""Counts and times per procedure: written by one relay thread, read by anyone.

Lists indexed by procedure number: an increment is one item assignment, and a reader in another
thread sees some recent value of each, which is all that figures promise.
"""

from typing import Final

from proxyd.relay.histogram import CALL_NS, Histogram
from proxyd.wire.names import NAMES
from proxyd.wire.programs import Program

KNOWN: Final = len(NAMES[Program.REMOTE])  # index 0 counts every other program and number


class DirectionFigures:
    """Of one direction, by REMOTE procedure number: frames, bytes, calls among them (on the way
    down: replies), and replies that carry an error."""

    __slots__ = ("bytes", "calls", "errors", "frames")

    def __init__(self) -> None:
        self.frames = [0] * KNOWN
        self.calls = [0] * KNOWN
        self.bytes = [0] * KNOWN
        self.errors = [0] * KNOWN


class Figures:
    """What one relay thread has moved to and from one daemon since it started.

    `call_time` is None where no call has been timed yet.
    """

    __slots__ = ("call_time", "down", "up")

    def __init__(self) -> None:
        self.up = DirectionFigures()
        self.down = DirectionFigures()
        self.call_time: list[Histogram | None] = [None] * KNOWN


class Clock:
    """The time of one relay thread's present turn, by CLOCK_MONOTONIC."""

    __slots__ = ("now_ns",)

    def __init__(self) -> None:
        self.now_ns = 0


class Stopwatch:
    """Times one call of a session at a time: the one with this `serial`, or none while it is -1."""

    __slots__ = ("_began_ns", "_clock", "_procedure", "_times", "serial", "sum_ns", "timed")

    def __init__(self, times: list[Histogram | None], clock: Clock) -> None:
        self.serial = -1
        self._times = times
        self._clock = clock
        self._procedure = 0
        self._began_ns = 0
        self.timed = self.sum_ns = 0  # of this session

    def start(self, serial: int, procedure: int) -> None:
        self.serial = serial
        self._procedure = procedure
        self._began_ns = self._clock.now_ns

    def stop(self) -> None:
        self.serial = -1
        times = self._times[self._procedure]
        if times is None:  # once for each procedure
            times = self._times[self._procedure] = Histogram(CALL_NS)
        took_ns = self._clock.now_ns - self._began_ns
        times.observe(took_ns)
        self.timed += 1
        self.sum_ns += took_ns


class _NoStopwatch(Stopwatch):
    """Of a flow whose calls nobody times: no frame has its serial."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__([None], Clock())
        self.serial = 1 << 32


NO_STOPWATCH: Final = _NoStopwatch()
