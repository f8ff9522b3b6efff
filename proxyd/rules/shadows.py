"""Rules that can never decide anything, found without a client.

A rule is in the shadow of an earlier one that takes each client and each name that it is for. That
is shown by the patterns themselves; where they do not plainly show it nothing is said, so that
whoever is told of a shadow can rely on it. Two rules that only together take all are no shadow
here.

Which earlier rules come into question is asked of the index, with a client that the rule is for: a
rule that takes all of them takes this one.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from proxyd.rules.index import Index
from proxyd.rules.pattern import Client, Kind, Pattern
from proxyd.rules.rule import Rule, Together
from proxyd.rules.subject import NOBODY, Way

# Each client has one of these; whoever came through sshd is at a UNIX socket as well.
SITUATIONS: Final[tuple[frozenset[Way], ...]] = (
    frozenset({Way.UNIX}),
    frozenset({Way.RO}),
    frozenset({Way.TCP}),
    frozenset({Way.TLS}),
    frozenset({Way.UNIX, Way.SSH}),
    frozenset({Way.RO, Way.SSH}),
)
_LOCAL: Final = frozenset({Way.UNIX, Way.RO, Way.SSH})
# By which ways there can be clients of whom this is known.
WAYS_OF_KIND: Final[dict[Kind, frozenset[Way]]] = {
    Kind.USER: _LOCAL,
    Kind.GROUP: _LOCAL,
    Kind.UID: _LOCAL,
    Kind.SASL: frozenset(Way),
    Kind.DN: frozenset({Way.TLS}),
    Kind.SAN: frozenset({Way.TLS}),
    Kind.ADDR: frozenset({Way.TCP, Way.TLS}),
    Kind.ALL: frozenset(Way),
}
_SEVERAL: Final[Collection[Kind]] = (Kind.GROUP, Kind.SAN)
_MOST_COMPARED: Final = 2_000_000  # pairs of rules; some seconds


def situations(rule: Rule, together: Together) -> frozenset[frozenset[Way]]:
    """In which a client can be whom the rule means by this alternative; empty if there is none."""
    return frozenset(
        each
        for each in SITUATIONS
        if (rule.ways is None or not rule.ways.isdisjoint(each))
        and all(not WAYS_OF_KIND[pattern.kind].isdisjoint(each) for pattern in together)
    )


def takes_all(earlier: Rule, later: Rule) -> bool:
    """Whether the earlier rule plainly decides wherever the later one could."""
    until_s = earlier.grant.until_s
    if until_s and not 0 < later.grant.until_s <= until_s:
        return False
    for uri in later.uris:
        if not any(each.takes(uri) for each in earlier.uris):
            return False
    for together in later.who:
        met = situations(later, together)
        if earlier.ways is not None and any(earlier.ways.isdisjoint(each) for each in met):
            return False
        if met and not any(_wider(each, together) for each in earlier.who):
            return False
    return True


def _wider(wide: Together, narrow: Together) -> bool:
    return all(any(each.takes(pattern) for pattern in narrow) for each in wide)


def shadows(rules: Sequence[Rule]) -> Iterator[tuple[Rule, Rule]]:
    """Pairs of a rule that never decides, and one before it that is why, in the file's order.

    A rule that nobody can fit is no part of it. Ends early where rules are so many, and so much
    alike, that to compare them would take minutes.
    """
    index, left = Index(rules), _MOST_COMPARED
    for number, rule in enumerate(rules):
        together = next((each for each in rule.who if situations(rule, each)), None)
        if together is None:
            continue
        first = number
        for numbers in index.places(_witness(together), rule.uris[0].witness()):
            for other in numbers:
                if other >= first:
                    break
                left -= 1
                if takes_all(rules[other], rule):
                    first = other
                    break
        if first < number:
            yield rule, rules[first]
        if left < 0:
            return


def _witness(together: Together) -> Client:
    """Somebody whom all patterns fit, if each is about something else."""
    client = Client(NOBODY)
    for pattern in sorted(together, key=_is_wide, reverse=True):
        if pattern.glob is not None:
            name = pattern.glob.witness()
            several = client.names[pattern.kind] if pattern.kind in _SEVERAL else ()
            client.names[pattern.kind] = (*several, name)
        elif pattern.bits:
            client.numbers[pattern.bits] = pattern.low
    return client


def _is_wide(pattern: Pattern) -> bool:
    return pattern.glob is not None and not pattern.glob.is_exact
