"""What a threshold was held against, in the unit that it was given in."""

import re
from typing import Final

from ..results import Verdict
from ..tables import NOTHING
from .words import duration, number

MET: Final = "✓"
MISSED: Final = "✗"
# p99<2ms, connect_p99<2ms; and errors<0.1%
_OF_TIME: Final = re.compile(r"(?:.*[:_ ])?(?:p[0-9.]+|min|mean|max)\s*[<>=]")
_OF_SHARE: Final = re.compile(r"[^<>=]*[<>=].*%\s*")


def mark(verdict: Verdict) -> str:
    return MET if verdict.met else MISSED


def found(verdict: Verdict) -> str:
    """Times are nanoseconds, what was asked for in percent is a share of 1."""
    if verdict.value is None:
        return NOTHING
    if _OF_TIME.match(verdict.text):
        return duration(verdict.value)
    if _OF_SHARE.fullmatch(verdict.text):
        return f"{verdict.value:.3%}"
    return number(verdict.value)
