"""Resident memory and descriptors of the target's processes, over time."""

import math
from dataclasses import dataclass, field
from typing import Final

from ..processes import Standing

_HOUR_S: Final = 3600.0
_SURE: Final = 3.0  # standard errors that a slope must be above the threshold


@dataclass(slots=True)
class Line:
    """The straight line through points by least squares, of which only sums are kept."""

    count: int = 0
    _x: float = 0.0  # means
    _y: float = 0.0
    _xx: float = 0.0  # sums of squares and products around them (Welford)
    _yy: float = 0.0
    _xy: float = 0.0
    _last: float = 0.0

    def add(self, x: float, y: float) -> None:
        self.count += 1
        dx, dy = x - self._x, y - self._y
        self._x += dx / self.count
        self._y += dy / self.count
        self._xx += dx * (x - self._x)
        self._yy += dy * (y - self._y)
        self._xy += dx * (y - self._y)
        self._last = x

    @property
    def slope(self) -> float | None:
        """None while there are no two points."""
        return self._xy / self._xx if self._xx else None

    @property
    def error(self) -> float:
        """The slope's standard error; it takes the points' deviations for independent."""
        if self.count < 3 or not self._xx:  # two points always lie on a line
            return math.inf
        rest = max(0.0, self._yy - self._xy**2 / self._xx)
        return math.sqrt(rest / (self.count - 2) / self._xx)


@dataclass(slots=True)
class Watched:
    """One group of processes, from after the warm-up on."""

    before: Standing
    middle: Standing  # when half of the time was over and no session was there
    after: Standing
    memory: Line = field(default_factory=Line)  # KiB over seconds

    @property
    def slope_kib_h(self) -> float | None:
        slope = self.memory.slope
        return None if slope is None else slope * _HOUR_S

    def grows(self, allowed_kib_h: float, least_kib: int, elapsed_s: float) -> bool:
        """Whether the slope is surely steeper than allowed, and more than an allocator's whim."""
        slope = self.memory.slope
        if slope is None or slope * elapsed_s < least_kib:
            return False
        return (slope - _SURE * self.memory.error) * _HOUR_S > allowed_kib_h

    @property
    def leaked(self) -> int | None:
        """Descriptors more than there were in the middle, and after the warm-up.

        All are counted when no session is there. A daemon that keeps some for later, as proxyd
        does with its pipes, has as many as it wants by the middle; a leak goes on.
        """
        after = self.after.descriptors
        return None if after is None else max(0, after - self.most)

    @property
    def most(self) -> int:
        """Descriptors when no session was there, before the end."""
        return max(self.before.descriptors or 0, self.middle.descriptors or 0)
