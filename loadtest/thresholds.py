"""What a run must keep to: `p99<2ms`, `errors<0.1%`, `proxyd:rate>1000`.

Known are p50, p90, p99, p99.9 and any other percentile, max and mean, of calls or, behind
`connect_`, of new sessions; rate, answered calls per second; and errors, as a share of what was
tried or as a number. Without a target's name every target must keep to it.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Final

from .failures import UsageError
from .figures import Latencies
from .results import TargetResult, Verdict
from .running.errors import is_answer

_SIDES: Final[dict[str, Callable[[float, float], bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_TIMES: Final = {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}
_SHAPE: Final = re.compile(
    r"(?:(?P<target>[A-Za-z0-9][A-Za-z0-9._-]*):)?(?P<metric>[a-z_]+[0-9.]*)"
    r"(?P<side><=|>=|<|>)(?P<number>[0-9]{1,12}(?:\.[0-9]{1,9})?)(?P<unit>[a-zµ%/]*)"
)
_OF_TIME: Final = re.compile(r"(?P<connect>connect_)?(?:p(?P<percent>[0-9.]+)|max|mean)")
_EXPECTED: Final = "as in 'p99<2ms', 'connect_p99<20ms', 'errors<0.1%' or 'rate>1000'"


@dataclass(frozen=True, slots=True)
class Threshold:
    """One of them. Values are nanoseconds, shares from 0 to 1, errors or calls per second."""

    text: str
    target: str | None  # None: every one
    measure: Callable[[TargetResult], float | None]
    side: str
    limit: float

    def verdict(self, target: TargetResult) -> Verdict:
        """What was never measured is not kept to."""
        value = self.measure(target)
        met = value is not None and _SIDES[self.side](value, self.limit)
        return Verdict(text=self.text, target=target.name, value=value, met=met)


def parse_threshold(text: str) -> Threshold:
    """Raises UsageError, which says what was expected."""
    found = _SHAPE.fullmatch("".join(text.split()))
    if not found:
        raise UsageError(f"threshold {text!r}: expected [TARGET:]FIGURE<LIMIT, {_EXPECTED}")
    metric, unit = found["metric"], found["unit"]
    of_time = _OF_TIME.fullmatch(metric)
    if of_time:
        factors, measure = _TIMES, _time(text, metric, of_time)
    elif metric == "errors":
        factors = {"": 1.0, "%": 0.01}
        measure = _error_share if unit == "%" else _error_count
    elif metric == "rate":
        factors, measure = {"": 1.0, "/s": 1.0}, _rate
    else:
        raise UsageError(f"threshold {text!r}: {metric!r} is no figure; {_EXPECTED}")
    if unit not in factors:
        units = ", ".join(repr(one) for one in factors)
        raise UsageError(f"threshold {text!r}: {unit!r} is no unit of {metric}; known are {units}")
    limit = float(found["number"]) * factors[unit]
    return Threshold(text, found["target"], measure, found["side"], limit)


def judge(thresholds: Iterable[Threshold], targets: list[TargetResult]) -> list[Verdict]:
    """Threshold by threshold, beside every target that it is for."""
    return [
        threshold.verdict(target)
        for threshold in thresholds
        for target in targets
        if threshold.target in (None, target.name)
    ]


def _time(text: str, metric: str, found: re.Match[str]) -> Callable[[TargetResult], float | None]:
    figure = _figure(text, metric, found["percent"])
    connects = found["connect"] is not None

    def measure(target: TargetResult) -> float | None:
        latencies = target.connects if connects else target.calls
        return figure(latencies) if latencies.count else None

    return measure


def _figure(text: str, metric: str, percent: str | None) -> Callable[[Latencies], float]:
    if percent is None:
        return (lambda found: found.mean) if metric.endswith("mean") else lambda one: one.highest
    try:
        number = float(percent)
    except ValueError:
        number = 0.0
    if not 0 < number <= 100:
        raise UsageError(f"threshold {text!r}: p{percent} is no percentile; {_EXPECTED}")
    return lambda found: found.percentile(number)


def _rate(target: TargetResult) -> float | None:
    return target.calls.count / target.elapsed_s if target.elapsed_s else None


def _error_count(target: TargetResult) -> float | None:
    return float(sum(target.errors.values()))


def _error_share(target: TargetResult) -> float | None:
    """Of all that was tried: an error reply is an answer as well, and counts once."""
    unanswered = sum(number for kind, number in target.errors.items() if not is_answer(kind))
    tried = target.calls.count + unanswered
    return sum(target.errors.values()) / tried if tried else None
