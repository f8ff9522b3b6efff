"""Numbers with their units, as the command line has them. Each raises ArgumentTypeError."""

import re
from argparse import ArgumentTypeError
from typing import Final

LONGEST_S: Final = 7 * 86400.0  # of a run

_SIZE_UNITS: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE: Final = re.compile(r"([0-9]{1,18})(|KiB|MiB|GiB)")
_DURATION_UNITS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(|ms|s|m|h)")
_RATE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/s)?")


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    """A bare number of seconds, for deadlines and slices."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.001 <= found <= 3600:  # a smaller one would round to "no deadline" in the kernel
        raise ArgumentTypeError(f"{text!r} is no number of seconds from 0.001 to 3600")
    return found


def duration(text: str) -> float:
    """Seconds of `500ms`, `10s`, `2m`, `1h`; without a unit it is seconds."""
    found = _DURATION.fullmatch(text)
    found_s = float(found[1]) * _DURATION_UNITS[found[2]] if found else 0.0
    if not 0.001 <= found_s <= LONGEST_S:
        raise ArgumentTypeError(f"{text!r} is no duration up to a week, as in 500ms, 10s, 2m or 1h")
    return found_s


def rate(text: str) -> float:
    """Calls per second: `1000`, `0.5`, `1000/s`."""
    found = _RATE.fullmatch(text)
    if not found or not float(found[1]):
        raise ArgumentTypeError(f"{text!r} is no rate; give calls per second, as in 1000")
    return float(found[1])


def size(text: str) -> int:
    """Bytes of `10KiB`, `1GiB`; without a unit it is bytes."""
    found = _SIZE.fullmatch(text)
    if not found or not int(found[1]):
        raise ArgumentTypeError(
            f"{text!r} is no size; give bytes, or KiB, MiB or GiB of them, as in 256MiB"
        )
    return int(found[1]) * _SIZE_UNITS[found[2]]
