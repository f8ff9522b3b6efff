"""What a run comes to: what each relay adds, as a multiple of the bare one's; and verdicts."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..failures import UsageError
from ..figures import Figure, added_p50
from ..results import Verdict
from .bare import NAMES
from .measure import Entrant, Order, speaks_tls

_SHAPE: Final = re.compile(
    r"(?:(?P<target>[A-Za-z0-9][A-Za-z0-9._-]*):)?(?P<order>warm|cold)"
    r"(?P<side><=|<)(?P<number>[0-9]{1,6}(?:\.[0-9]{1,6})?)"
)


@dataclass(frozen=True, slots=True)
class Added:
    """By one relay, in one order. `multiple` is None of a bare one, or where that adds nothing."""

    p50_ns: Figure
    multiple: Figure | None


@dataclass(frozen=True, slots=True)
class Threshold:
    """Which multiple is good enough. `target` is None where every proxy has to keep to it."""

    text: str
    target: str | None
    order: Order
    limit: float
    may_be_equal: bool

    def verdict(self, target: str, value: float | None) -> Verdict:
        """What was never measured is not kept to."""
        met = value is not None and (
            value < self.limit or (self.may_be_equal and value == self.limit)
        )
        return Verdict(text=self.text, target=target, value=value, met=met)


def parse_threshold(text: str) -> Threshold:
    """Raises UsageError, which says what was expected."""
    found = _SHAPE.fullmatch("".join(text.split()))
    if not found:
        raise UsageError(
            f"threshold {text!r}: expected [TARGET:]warm<NUMBER or cold<NUMBER, as in 'warm<1.2'"
        )
    order, limit = Order(found["order"]), float(found["number"])
    return Threshold(text, found["target"], order, limit, found["side"] == "<=")


def added(entrants: Sequence[Entrant], one: Entrant, order: Order) -> Added:
    """Round by round, and over all of them."""
    mine, bare = _added_p50(one, entrants[0], order), bare_of(entrants, one)
    if bare is one:
        return Added(mine, None)
    return Added(mine, _multiple(mine, _added_p50(bare, entrants[0], order)))


def bare_of(entrants: Sequence[Entrant], one: Entrant) -> Entrant:
    """Whom a relay is compared with; a bare one with itself."""
    name = NAMES[speaks_tls(one.target)]
    return next(each for each in entrants if each.target.name == name)


def judge(thresholds: Iterable[Threshold], entrants: Sequence[Entrant]) -> list[Verdict]:
    """Threshold by threshold, beside every target that it is for."""
    verdicts = []
    for threshold in thresholds:
        for one in entrants[1:]:
            name = one.target.name
            if name in NAMES.values() or threshold.target not in (None, name):
                continue
            multiple = added(entrants, one, threshold.order).multiple
            verdicts.append(threshold.verdict(name, multiple.value if multiple else None))
    return verdicts


def _added_p50(one: Entrant, direct: Entrant, order: Order) -> Figure:
    found = added_p50(one.figures(order), direct.figures(order))
    assert found is not None, "a difference can be taken of any two numbers"
    return found


def _multiple(mine: Figure, bare: Figure) -> Figure | None:
    if bare.value <= 0 or bare.low <= 0:
        return None
    pairs = zip(mine.per_round, bare.per_round, strict=True)
    return Figure(mine.value / bare.value, tuple(one / two for one, two in pairs))
