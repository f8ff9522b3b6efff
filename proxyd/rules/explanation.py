"""Why a rule does not hold for a client."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from proxyd.config.quoting import one_line, shortened
from proxyd.rules.pattern import Client, Kind, Pattern
from proxyd.rules.rule import Rule
from proxyd.rules.subject import Way

MOST_PASSED: Final = 40  # rules that are spoken of one by one
_MOST_SAID: Final = 5  # groups, names, alternatives in one sentence
_LONGEST_SAID: Final = 120


class Reason(StrEnum):
    """Which part of a rule does not fit; columns are looked at in this order."""

    WAY = "way"
    WHO = "who"
    WHAT = "what"
    ENDED = "until"


def why_not(rule: Rule, client: Client, uri: str, now_s: float) -> Reason | None:
    """The first part of it that does not fit; None if the rule holds."""
    if rule.ways is not None and rule.ways.isdisjoint(client.subject.ways):
        return Reason.WAY
    for together in rule.who:
        for pattern in together:
            if not pattern.matches(client):
                break
        else:
            break
    else:
        return Reason.WHO
    for glob in rule.uris:
        if glob.matches(uri):
            break
    else:
        return Reason.WHAT
    until_s = rule.grant.until_s
    return Reason.ENDED if until_s and now_s >= until_s else None


@dataclass(frozen=True, slots=True)
class Passed:
    """Rules that did not decide, from one line of the file to another, and why."""

    first: int
    last: int
    count: int
    reason: Reason | None  # None where they have several
    text: str

    def __str__(self) -> str:
        if self.count == 1:
            return f"line {self.first}: {self.text}"
        return f"lines {self.first} to {self.last}, {self.count} rules: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The rule that decides, None if nobody's does; and those before it, in their order."""

    rule: Rule | None
    before: tuple[Passed, ...]


def passed_over(
    rules: Sequence[Rule], client: Client, uri: str, now_s: float
) -> tuple[Passed, ...]:
    """Why none of these holds: of each, or where there are many, of ranges of them."""
    if len(rules) <= MOST_PASSED:
        return tuple(_one(rule, client, uri, now_s) for rule in rules)
    ranges: list[Passed] = []
    for rule in rules:
        reason = why_not(rule, client, uri, now_s)
        last = ranges[-1] if ranges else None
        if last is not None and last.reason is reason:
            ranges[-1] = Passed(last.first, rule.line, last.count + 1, reason, "")
        else:
            ranges.append(Passed(rule.line, rule.line, 1, reason, ""))
    if len(ranges) > MOST_PASSED:
        kept = MOST_PASSED // 2
        middle = ranges[kept:-kept]
        count = sum(each.count for each in middle)
        between = Passed(middle[0].first, middle[-1].last, count, None, "")
        ranges = [*ranges[:kept], between, *ranges[-kept:]]
    by_line = {rule.line: rule for rule in rules}
    return tuple(_told(each, by_line[each.first], client, uri, now_s) for each in ranges)


def _told(passed: Passed, rule: Rule, client: Client, uri: str, now_s: float) -> Passed:
    if passed.count == 1:
        return _one(rule, client, uri, now_s)
    text = "each for one of several reasons" if passed.reason is None else _OF_MANY[passed.reason]
    return Passed(passed.first, passed.last, passed.count, passed.reason, text)


_OF_MANY: Final = {
    Reason.WAY: "for other ways in",
    Reason.WHO: "for other clients",
    Reason.WHAT: "for other URIs",
    Reason.ENDED: "ended",
}


def _one(rule: Rule, client: Client, uri: str, now_s: float) -> Passed:
    reason = why_not(rule, client, uri, now_s)
    match reason:
        case Reason.WAY:
            text = _of_way(rule, client)
        case Reason.WHO:
            text = _of_who(rule, client)
        case Reason.WHAT:
            asked = "no URI" if not uri else one_line(uri)
            text = f"for {listed([glob.text for glob in rule.uris])}, and it asks for {asked}"
        case Reason.ENDED:
            text = f"it ended at {moment(rule.grant.until_s)}"
        case _:
            text = ""
    return Passed(rule.line, rule.line, 1, reason, text)


def _of_way(rule: Rule, client: Client) -> str:
    came = ways_in_words(client.subject.ways) or "no way that is known"
    return f"by {ways_in_words(rule.ways or (), 'or')}, and this client came by {came}"


def ways_in_words(ways: Iterable[Way], last: str = "and") -> str:
    """In the order of the documents: unix, ro and ssh."""
    found = {*ways}
    names = [way.value for way in Way if way in found]
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _of_who(rule: Rule, client: Client) -> str:
    if len(rule.who) > 1:
        names = ["&".join(map(str, together)) for together in rule.who]
        return f"it is none of {listed(names)}"
    failed = next(pattern for pattern in rule.who[0] if not pattern.matches(client))
    return f"for {shortened(str(failed), _LONGEST_SAID)}: {_what_it_is(failed, client)}"


def _what_it_is(pattern: Pattern, client: Client) -> str:
    subject, names = client.subject, client.names.get(pattern.kind, ())
    match pattern.kind:
        case Kind.GROUP if names:
            return f"it is in {listed(sorted(names))}"
        case Kind.UID if subject.uid is not None:
            return f"it has {subject.uid}"
        case Kind.ADDR if subject.address:
            return f"it is at {listed([subject.address])}"
        case Kind.SAN if names:
            return f"its certificate has {listed(names)}"
        case Kind.USER | Kind.SASL | Kind.DN if names:
            return f"it is {listed(names)}"
        case known:
            return _LACKING[known]


_LACKING: Final = {
    Kind.USER: "no user of this host is known of it",
    Kind.GROUP: "it is in no group that is known",
    Kind.UID: "no uid is known of it",
    Kind.SASL: "it did not prove a SASL name",
    Kind.DN: "it showed no certificate",
    Kind.SAN: "it showed no certificate with other names",
    Kind.ADDR: "it came by no network",
}


def listed(texts: Sequence[str]) -> str:
    """Some of them, on one line; a stranger may have chosen them."""
    said = ", ".join(one_line(shortened(text, _LONGEST_SAID)) for text in texts[:_MOST_SAID])
    more = len(texts) - _MOST_SAID
    return said + (f" and {more} more" if more > 0 else "")


def moment(time_s: float) -> str:
    """A time of CLOCK_REALTIME as this host says it."""
    return dt.datetime.fromtimestamp(time_s).astimezone().isoformat(" ", "minutes")
