"""Numbers and foreign texts as a few characters."""

import math
from typing import Final

from ..tables import NOTHING

_TIMES: Final = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1, "ns"))
_SIZES: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def clean(text: str) -> str:
    """A foreign text without what would steer a terminal, turn lines around or be no character."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def shortened(text: str, width: int) -> str:
    """Cut in the middle, for names differ at both ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    tail = width - 1 - head
    return f"{text[:head]}…{text[len(text) - tail :]}"


def duration(nanoseconds: float | None) -> str:
    """Three digits and a unit: 80.1µs."""
    if nanoseconds is None:
        return NOTHING
    # By what it is rounded to, or 999.96 µs would be 1000µs.
    for factor, unit in _TIMES:
        if nanoseconds >= factor * 0.9995:
            return f"{_three_digits(nanoseconds / factor)}{unit}"
    return "0s" if nanoseconds == 0 else f"{nanoseconds:.2g}ns"


def brief_duration(nanoseconds: float) -> str:
    """A round number's: 20ms."""
    factor, unit = next((one for one in _TIMES if nanoseconds >= one[0]), _TIMES[-1])
    return f"{nanoseconds / factor:g}{unit}" if nanoseconds else "0"


def brief_number(value: float) -> str:
    """A round number: 0.5, or 1,000,000."""
    return f"{value:,.10g}"


def number(value: float | None) -> str:
    """With commas from a thousand on; three digits below."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 999.5 else _three_digits(value)


def amount(count: float) -> str:
    """Bytes in the largest unit that there is one of."""
    for factor, unit in _SIZES:
        if count >= factor:
            return f"{_three_digits(count / factor)} {unit}"
    return f"{count:.0f} B"


def share(part: float, whole: float) -> str:
    """A percentage that never says 0 or 100 of what is only near it."""
    if whole <= 0:
        return NOTHING
    shown = f"{part / whole:.2%}"
    if shown == "0.00%":
        return "<0.01%" if part else "0%"
    if shown == "100.00%":
        return ">99.99%" if part < whole else "100%"
    return shown


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)) + 0.0005)
    return f"{value:.{min(max(digits, 0), 4)}f}"
