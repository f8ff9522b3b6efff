"""What a rules file says and hardly means: no fault, and yet somebody should look."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from proxyd.config.quoting import excerpt
from proxyd.config.sources import Doubt
from proxyd.rules.explanation import moment, ways_in_words
from proxyd.rules.grammar import Parsed
from proxyd.rules.grant import Level
from proxyd.rules.pattern import Kind, Pattern
from proxyd.rules.rule import Rule, Together
from proxyd.rules.shadows import WAYS_OF_KIND, shadows, situations
from proxyd.rules.subject import Way

MOST_DOUBTS: Final = 100
_READ_ONLY: Final = frozenset({Way.RO})


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What is known of the host that the rules are for.

    `exists` tells whether a user or a group has a name; it may ask a name service. `sasl_ways` are
    those by which clients prove a SASL name, None if that is not known.
    """

    exists: Callable[[Kind, str], bool] | None = None
    sasl_ways: Collection[Way] | None = None


def doubts_of(parsed: Parsed, now_s: float, house: House) -> tuple[Doubt, ...]:
    """All of them in the file's order, with those of the parser; 100 at the most."""
    doubts = [*parsed.doubts, *_of_sets(parsed), *_of_shadows(parsed)]
    for rule in parsed.rules:
        doubts += _of_rule(rule, parsed.path, now_s, house)
    doubts += _of_names(parsed, house)
    if not parsed.rules and not parsed.faults:
        doubts.append(Doubt(parsed.path, 1, 1, "", "there is no rule, so everybody is refused"))
    doubts.sort(key=lambda doubt: (doubt.line, doubt.column))
    if len(doubts) > MOST_DOUBTS:
        left = doubts[MOST_DOUBTS - 1 :]
        first = left[0]
        text = f"{len(left)} more of these from here on"
        doubts = [*doubts[: MOST_DOUBTS - 1], Doubt(first.path, first.line, 1, "", text)]
    return tuple(doubts)


def _of_sets(parsed: Parsed) -> Iterator[Doubt]:
    if parsed.faults:  # a rule with one may name it
        return
    for known in parsed.sets.values():
        if known.name not in parsed.sets_in_use:
            line, column = known.place
            text = f"no rule names the set {known.name}"
            yield Doubt(parsed.path, line, column, known.name, text)


def _of_shadows(parsed: Parsed) -> Iterator[Doubt]:
    """Neighbours in one shadow are one doubt."""
    rows: list[tuple[list[Rule], Rule]] = []
    numbers = {rule.line: number for number, rule in enumerate(parsed.rules)}
    for rule, why in shadows(parsed.rules):
        if rows and rows[-1][1] is why and numbers[rows[-1][0][-1].line] + 1 == numbers[rule.line]:
            rows[-1][0].append(rule)
        else:
            rows.append(([rule], why))
    for row, why in rows:
        first, last = row[0].line, row[-1].line
        if len(row) == 1:
            text = f"this rule never decides: line {why.line} takes all whom it is for"
        else:
            text = (
                f"these {len(row)} rules, to line {last}, never decide: line {why.line} takes all"
                " whom they are for"
            )
        yield Doubt(parsed.path, first, 1, "", text)


def _of_rule(rule: Rule, path: str, now_s: float, house: House) -> Iterator[Doubt]:
    def doubt(key: str, text: str) -> Doubt:
        return Doubt(path, rule.line, 1, key, text)

    grant = rule.grant
    if grant.until_s and now_s >= grant.until_s:
        yield doubt("until", f"this rule ended at {moment(grant.until_s)}: take it out")
    if rule.ways == _READ_ONLY and grant.level in {Level.WRITE, Level.SET}:
        text = "by ro alone: clients of the read-only socket only read, whatever a rule says"
        yield doubt("may", f"{grant.name} {text}")
    for together in rule.who:
        if not situations(rule, together):
            yield doubt("who", _never(rule, together))
        elif _lacks_sasl(rule, together, house):
            by = "any way" if rule.ways is None else ways_in_words(rule.ways, "or")
            settings = "auth_unix_rw, auth_unix_ro, auth_tcp and auth_tls say so"
            yield doubt("sasl", f"no client proves a SASL name by {by} here: {settings}")
        if any(pattern.kind is Kind.SAN and pattern.text == "dns:*" for pattern in together):
            yield doubt("san", "san:* is a DNS name alone; whoever has a certificate is dn:*")


def _lacks_sasl(rule: Rule, together: Together, house: House) -> bool:
    if house.sasl_ways is None or all(each.kind is not Kind.SASL for each in together):
        return False
    return all(each.isdisjoint(house.sasl_ways) for each in situations(rule, together))


def _never(rule: Rule, together: Together) -> str:
    said = excerpt("&".join(map(str, together)))
    for pattern in together:
        ways = WAYS_OF_KIND[pattern.kind]
        if rule.ways is not None and rule.ways.isdisjoint(ways):
            return (
                f"nobody fits {said}: {pattern.kind.value}: is known of clients by"
                f" {ways_in_words(ways)}, and this rule is for {ways_in_words(rule.ways)}"
            )
    return f"nobody fits {said}: no client has all of that"


def _of_names(parsed: Parsed, house: House) -> Iterator[Doubt]:
    """Users and groups that are not there, each told of where it first stands."""
    if house.exists is None:
        return
    seen = set[Pattern]()
    for rule in parsed.rules:
        for together in rule.who:
            for pattern in together:
                if (
                    pattern.kind not in {Kind.USER, Kind.GROUP}
                    or pattern.glob is None
                    or not pattern.glob.is_exact
                    or pattern in seen
                ):
                    continue
                seen.add(pattern)
                if not house.exists(pattern.kind, pattern.text):
                    what = pattern.kind.value
                    text = f"this host knows no {what} {excerpt(pattern.text)}"
                    yield Doubt(parsed.path, rule.line, 1, what, text)
