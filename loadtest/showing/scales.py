"""Axes: where a value stands, and at which values there is a line with a number."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_MANY_TICKS: Final = 7
_NICE: Final = (1, 2, 5, 10)
# Seconds that people count in, each with the unit that its multiples are told in.
_NICE_TIMES: Final = (
    *((step, 1, "s") for step in (1, 2, 5, 10, 15, 30)),
    *((60 * step, 60, "min") for step in (1, 2, 5, 10, 15, 30)),
    *((3600 * step, 3600, "h") for step in (1, 2, 4, 8, 12, 24, 48, 96, 168)),
)


@dataclass(frozen=True, slots=True)
class Scale:
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    bend: Callable[[float], float] = float  # makes even what is shown evenly

    def place(self, value: float) -> float:
        """From 0 to 1 for what lies between low and high, and never beyond."""
        low, high = self.bend(self.low), self.bend(self.high)
        kept = min(max(value, self.low), self.high)
        return (self.bend(kept) - low) / (high - low)


def linear(highest: float, shown: Callable[[float], str]) -> Scale:
    """From zero to a round number that is not below `highest`."""
    step = _nice_step(max(highest, 1e-9) / (_MANY_TICKS - 1))
    count = max(1, math.ceil(highest / step - 1e-9))
    return Scale(0, count * step, tuple((n * step, shown(n * step)) for n in range(count + 1)))


def logarithmic(lowest: float, highest: float, shown: Callable[[float], str]) -> Scale:
    """From round number to round number around both, which must be above zero."""
    first = math.floor(math.log10(lowest))
    last = math.ceil(math.log10(highest))
    nice = [n * 10.0**power for power in range(first, last + 1) for n in (1, 2, 5)]
    low = max((one for one in nice if one <= lowest), default=nice[0])
    high = next((one for one in nice if one >= highest and one > low), nice[-1])
    between = [one for one in nice if low <= one <= high]
    if len(between) > _MANY_TICKS + 1:  # then the powers of ten are enough
        between = [one for one in between if math.log10(one) % 1 == 0]
    return Scale(low, high, tuple((one, shown(one)) for one in between), math.log10)


def percentiles(count: int) -> Scale:
    """Percentages up to that of one in `count`, with as much room for each further nine."""
    nines = max(2.0, math.log10(max(count, 1)))
    ticks = [(0.0, "0 %")]
    # Decimals are said, because 100 - 10**-3 in binary has a tail.
    ticks += [(_nine(n), f"{_nine(n):.{max(0, n - 2)}f} %") for n in range(1, int(nines) + 1)]
    return Scale(0, 100 - 10 ** (2 - nines), tuple(ticks), _nines)


def _nines(percent: float) -> float:
    return -math.log10(1 - percent / 100)


def _nine(count: int) -> float:
    return 100 - 10.0 ** (2 - count)


def elapsed(seconds: float) -> Scale:
    """Time since the beginning, up to exactly `seconds`."""
    length = max(seconds, 1e-3)
    step, unit, name = next(
        (one for one in _NICE_TIMES if one[0] * 3 <= length <= one[0] * _MANY_TICKS),
        # Shorter than people count, or longer.
        (_nice_step(length / 3), 1, "s")
        if length < 60
        else (3600 * _nice_step(length / 3600 / _MANY_TICKS), 3600, "h"),
    )
    values = [n * step for n in range(int(length / step + 1e-9) + 1)]
    return Scale(0, length, tuple((one, f"{one / unit:g} {name}") for one in values))


def _nice_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(n * power for n in _NICE if n * power >= least * (1 - 1e-9))
