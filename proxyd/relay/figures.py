"""Counts per procedure: written by one relay thread, read by anyone.

Lists of integers indexed by procedure number: an increment is one item assignment, and a
reader in another thread sees some recent value of each, which is all that figures promise.
"""

from typing import Final

from proxyd.wire.names import NAMES
from proxyd.wire.programs import Program

KNOWN: Final = len(NAMES[Program.REMOTE])  # index 0 counts every other program and number


class DirectionFigures:
    """Frames and bytes of one direction, by REMOTE procedure number."""

    __slots__ = ("bytes", "errors", "frames")

    def __init__(self) -> None:
        self.frames = [0] * KNOWN
        self.bytes = [0] * KNOWN
        self.errors = [0] * KNOWN


class Figures:
    """What one relay thread has moved since it started."""

    __slots__ = ("down", "up")

    def __init__(self) -> None:
        self.up = DirectionFigures()
        self.down = DirectionFigures()
