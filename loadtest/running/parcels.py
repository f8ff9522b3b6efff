"""What a worker sends home: figures of a few hundredths of a second at a time.

Latencies go as 64-bit nanoseconds in bytes, which pickle fast, and become a histogram at home.
"""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time_ns


@dataclass(frozen=True, slots=True)
class Opened:
    """What became of a worker's first connections."""

    connections: int
    cipher: str | None
    reason: str | None  # of the first one that did not come about


@dataclass(frozen=True, slots=True)
class Parcel:
    """What happened in a part of one interval."""

    interval: int
    calls: dict[int, bytes]  # place in the mix → latencies
    connects: bytes
    late: bytes  # how late each call was sent although a connection was free
    errors: dict[str, int]
    bytes_up: int
    bytes_down: int
    events: int


@dataclass(frozen=True, slots=True)
class Done:
    """The last one: how long it took to the last reply, and what the worker used for it."""

    intervals: int  # that it has been in: all of them, unless it was stopped
    elapsed_ns: int
    cpu_ns: int
    waited_ns: int  # for a core, while others had it


@dataclass(slots=True)
class Tally:
    """Counts until the next parcel."""

    calls: list["array[int]"]  # by place in the mix
    connects: "array[int]" = field(default_factory=lambda: array("q"))
    late: "array[int]" = field(default_factory=lambda: array("q"))
    errors: Counter[str] = field(default_factory=Counter)
    bytes_up: int = 0
    bytes_down: int = 0
    events: int = 0

    def parcel(self, interval: int) -> Parcel:
        """All of it; what comes next is counted from zero."""
        made = Parcel(
            interval,
            {place: each.tobytes() for place, each in enumerate(self.calls) if each},
            self.connects.tobytes(),
            self.late.tobytes(),
            dict(self.errors),
            self.bytes_up,
            self.bytes_down,
            self.events,
        )
        self.clear()
        return made

    def clear(self) -> None:
        # In place: the hot path holds on to the arrays.
        for each in (*self.calls, self.connects, self.late):
            del each[:]
        self.errors.clear()
        self.bytes_up = self.bytes_down = self.events = 0


def samples(latencies: bytes) -> "array[int]":
    found = array("q")
    found.frombytes(latencies)
    return found


def cpu_and_wait_ns() -> tuple[int, int]:
    """CPU time of this process, and how long it was ready to run and had no core."""
    try:
        waited = int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        waited = 0  # a kernel without it
    return process_time_ns(), waited
