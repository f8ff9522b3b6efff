"""What is shown, as plain values: read from the daemon in its thread, written out in another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxyd.admin import document
from proxyd.relay.histogram import Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """A histogram at one time: bounds in seconds, counts up to each and beyond, seconds in all."""

    bounds_s: Sequence[float]
    counts: Sequence[int]
    sum_s: float

    @classmethod
    def of(cls, histogram: Histogram) -> "Times":
        """A copy, which another thread may go on to fill."""
        return cls(
            bounds_s=[each / 1e9 for each in histogram.bounds_ns],
            counts=list(histogram.counts),
            sum_s=histogram.sum_ns / 1e9,
        )

    def plus(self, other: "Times") -> "Times":
        """Those of two threads together; the bounds are the same."""
        return Times(
            bounds_s=self.bounds_s,
            counts=[ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)],
            sum_s=self.sum_s + other.sum_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadReading:
    """One relay thread: its name, sessions, and how long its turns took."""

    name: str
    sessions: int
    turn_time: Times


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonReading:
    """What has moved to and from one daemon, by the names of procedures."""

    daemon: str
    replies: Mapping[str, int]
    failures: Mapping[str, int]  # replies that carry an error
    bytes_up: int
    bytes_down: int
    under_way: int  # calls of open sessions that wait for their replies
    streams: int  # of open sessions
    call_time: Mapping[str, Times]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All of it. Labels: listeners by name, daemons by name, reasons."""

    status: document.Status
    states: Mapping[tuple[str, str, str], int]  # sessions by (listener, daemon, state)
    opened: Mapping[tuple[str, str], int]  # by (listener, daemon)
    refused: Mapping[str, int]
    login_delay_s: float
    denied_calls: int
    session_time: Mapping[str, Times]
    opening_time: Mapping[str, Times]
    handshake_time: Mapping[str, Times]
    daemons: Sequence[DaemonReading]
    threads: Sequence[ThreadReading]
