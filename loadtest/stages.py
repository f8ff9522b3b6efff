"""A rate, or a number of connections, over the time of a run: linear pieces.

`10s:100,30s:1000,10s:0` begins at 0, is at 100 after 10 s, at 1000 after 30 more, and at 0 at the
end. The same level twice holds it.
"""

from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

from . import amounts
from .failures import UsageError


@dataclass(frozen=True, slots=True)
class Piece:
    """From one level to another."""

    begins_s: float
    length_s: float
    low: float  # the level that it begins with; the other one may well be lower
    high: float

    @property
    def slope(self) -> float:
        return (self.high - self.low) / self.length_s

    def level(self, into_s: float) -> float:
        return self.low + self.slope * into_s

    def amount(self, into_s: float) -> float:
        """What has come by then at this rate."""
        return into_s * (self.low + self.level(into_s)) / 2

    def reached(self, amount: float) -> float:
        """When that much has come, in seconds into the piece; the inverse of `amount`."""
        # Not the school's formula: it divides by the slope, which may be 0.
        root = sqrt(max(0.0, self.low * self.low + 2 * self.slope * amount))
        return 2 * amount / (self.low + root) if amount else 0.0


@dataclass(frozen=True, slots=True)
class Course:
    """All pieces of a run, without a gap."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """As `parse_stages` reads it."""
        return ",".join(f"{piece.length_s:g}s:{piece.high:g}" for piece in self.pieces)

    @property
    def length_s(self) -> float:
        return self.pieces[-1].begins_s + self.pieces[-1].length_s

    @property
    def highest(self) -> float:
        return max(max(piece.low, piece.high) for piece in self.pieces)

    def level(self, at_s: float) -> float:
        """Before the beginning and behind the end: the level there."""
        at_s = min(max(at_s, 0.0), self.length_s)
        piece = next(one for one in reversed(self.pieces) if one.begins_s <= at_s)
        return piece.level(at_s - piece.begins_s)

    def amount(self, until_s: float) -> float:
        """How much has come by then, taken as a rate."""
        return sum(
            piece.amount(min(until_s - piece.begins_s, piece.length_s))
            for piece in self.pieces
            if piece.begins_s < until_s
        )

    def moments(self, counts: Iterable[float]) -> Iterator[float]:
        """When each of these ascending amounts has come, in seconds, as far as they do."""
        wanted = iter(counts)
        amount, before = next(wanted), 0.0
        for piece in self.pieces:
            after = before + piece.amount(piece.length_s)
            begins_s, reached = piece.begins_s, piece.reached
            while amount < after:
                yield begins_s + reached(amount - before)
                amount = next(wanted)
            before = after


def steady(level: float, length_s: float) -> Course:
    """One level from the beginning to the end."""
    return Course((Piece(0.0, length_s, level, level),))


def parse_stages(text: str) -> Course:
    """Raises UsageError, which names the stage."""
    pieces: list[Piece] = []
    stages = [(0.0, 0.0), *(_stage(one) for one in text.split(","))]
    begins_s = 0.0
    for (_, low), (length_s, high) in pairwise(stages):
        pieces.append(Piece(begins_s, length_s, low, high))
        begins_s += length_s
    course = Course(tuple(pieces))
    if not course.highest:
        raise UsageError(f"stages {text!r} never rise above 0")
    return course


def _stage(text: str) -> tuple[float, float]:
    length, colon, level = text.strip().partition(":")
    if not colon:
        raise UsageError(f"stage {text!r}: expected DURATION:LEVEL, as in 10s:100")
    try:
        return amounts.duration(length), 0.0 if level == "0" else amounts.rate(level)
    except ArgumentTypeError as error:
        raise UsageError(f"stage {text!r}: {error}") from None
