"""What a generator is told and what it answers: values that go over a pipe."""

from array import array
from dataclasses import dataclass

from .client import Opening
from .targets import Target


@dataclass(frozen=True, slots=True)
class CallOrder:
    """What a generator is started with that repeats one call on open connections."""

    target: Target
    opening: Opening
    procedure: int


@dataclass(frozen=True, slots=True)
class SessionOrder:
    """What a generator is started with that opens and closes sessions, so many at a time."""

    target: Target
    opening: Opening
    connections: int


Order = CallOrder | SessionOrder


@dataclass(frozen=True, slots=True)
class Open:
    """What it is told: one more connection. It answers with the cipher, or None if it is plain."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What it is told: work for so long, but until so much (calls, sessions) is done at least."""

    duration_ns: int
    least: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """What it answers to a turn. Latencies are 64-bit nanoseconds as bytes, which pickle fast."""

    elapsed_ns: int
    cpu_ns: int
    latencies: bytes

    def samples(self) -> "array[int]":
        samples = array("q")
        samples.frombytes(self.latencies)
        return samples
