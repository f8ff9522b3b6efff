"""Which rules may be meant by a client, found without looking at each of ten thousand.

Every alternative of a rule lies in one place, by the pattern of it that most tells clients apart:

* names without wildcards by themselves, and with the URI, where that has no wildcards either;
* names with wildcards by what they begin or end with, whichever is longer;
* addresses and uids by network: the bits that all numbers of a block begin with. A range of uids
  is cut into such blocks.

What has none of that, `user:*admin*` or all, lies there by its URI, or is looked at each time. A
place has numbers of rules in their order. Whoever looks there still has to ask the rule itself.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias, TypeVar

from proxyd.rules.glob import Glob
from proxyd.rules.pattern import Client, Kind, Pattern
from proxyd.rules.rule import Rule, Together

_URI: Final = "uri"  # beside the kinds of patterns
_MOST_BY_URI: Final = 64  # places of one rule
# The fewer clients a kind of name fits, the better.
_TELLING: Final = (Kind.DN, Kind.SAN, Kind.SASL, Kind.USER, Kind.UID, Kind.ADDR, Kind.GROUP)

Numbers: TypeAlias = list[int]
KeyT = TypeVar("KeyT")


class Index:
    """Built once of rules in their order."""

    __slots__ = ("_begins", "_blocks", "_ends", "_exact", "_scanned")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._exact: dict[tuple[str, str, str], Numbers] = {}
        # By kind, then by length.
        self._begins: dict[str, dict[int, dict[str, Numbers]]] = {}
        self._ends: dict[str, dict[int, dict[str, Numbers]]] = {}
        # By the bits of a number, then by how many of the last ones are free.
        self._blocks: dict[int, dict[int, dict[int, Numbers]]] = {}
        self._scanned: Numbers = []
        for number, rule in enumerate(rules):
            for together in rule.who:
                self._add(number, rule, together)

    @property
    def largest(self) -> int:
        """Rules in the place that has most of them: as many may be looked at for one name."""
        places = [self._scanned, *self._exact.values()]
        for by_length in (*self._begins.values(), *self._ends.values()):
            places += (numbers for found in by_length.values() for numbers in found.values())
        for by_free in self._blocks.values():
            places += (numbers for found in by_free.values() for numbers in found.values())
        return max(map(len, places))

    def places(self, client: Client, uri: str) -> Iterator[Numbers]:
        """Numbers of rules, in order within each place; the same one may be in several."""
        if self._scanned:
            yield self._scanned
        if (found := self._exact.get((Kind.ALL.value, "", uri))) is not None:
            yield found
        yield from self._by_ends(_URI, uri)
        for kind, names in client.names.items():
            for name in names:
                yield from self._named(kind.value, name, uri)
        for bits, number in client.numbers.items():
            for free, blocks in self._blocks.get(bits, _NO_BLOCKS).items():
                if (found := blocks.get(number >> free)) is not None:
                    yield found

    def _named(self, kind: str, name: str, uri: str) -> Iterator[Numbers]:
        for key in ((kind, name, uri), (kind, name, "")):
            if (found := self._exact.get(key)) is not None:
                yield found
        yield from self._by_ends(kind, name)

    def _by_ends(self, kind: str, name: str) -> Iterator[Numbers]:
        for length, begins in self._begins.get(kind, _NONE).items():
            if (found := begins.get(name[:length])) is not None:
                yield found
        for length, ends in self._ends.get(kind, _NONE).items():
            if (found := ends.get(name[-length:])) is not None:
                yield found

    def _add(self, number: int, rule: Rule, together: Together) -> None:
        pattern = min(together, key=_rank)
        glob = pattern.glob
        if pattern.bits:
            blocks = self._blocks.setdefault(pattern.bits, {})
            for free, block in _blocks_of(pattern.low, pattern.high):
                _put(blocks.setdefault(free, {}), block, number)
        elif glob is None or glob.is_exact:
            name = "" if glob is None else glob.text
            by_uri = all(uri.is_exact for uri in rule.uris)
            if by_uri and len(rule.uris) * len(rule.who) <= _MOST_BY_URI:
                for uri in rule.uris:
                    _put(self._exact, (pattern.kind.value, name, uri.text), number)
            elif glob is None:
                self._scan(number, rule)
            else:
                _put(self._exact, (pattern.kind.value, name, ""), number)
        elif not self._put_glob(pattern.kind.value, glob, number):
            self._scan(number, rule)

    def _put_glob(self, kind: str, glob: Glob, number: int) -> bool:
        """By its beginning or its end; False where it has neither."""
        longer = max(glob.prefix, glob.suffix, key=len)
        if longer:
            by_length = (self._begins if longer is glob.prefix else self._ends).setdefault(kind, {})
            _put(by_length.setdefault(len(longer), {}), longer, number)
        return longer != ""

    def _scan(self, number: int, rule: Rule) -> None:
        """Whoever asks: the URI may tell more, and if not, it is looked at each time."""
        if len(rule.uris) == 1 and self._put_glob(_URI, rule.uris[0], number):
            return
        if not self._scanned or self._scanned[-1] != number:
            self._scanned.append(number)


_NONE: Final[dict[int, dict[str, Numbers]]] = {}
_NO_BLOCKS: Final[dict[int, dict[int, Numbers]]] = {}


def _put(places: dict[KeyT, Numbers], key: KeyT, number: int) -> None:
    numbers = places.setdefault(key, [])
    if not numbers or numbers[-1] != number:
        numbers.append(number)


def _rank(pattern: Pattern) -> tuple[int, int]:
    """The lower, the fewer clients fit, as far as that shows."""
    if pattern.kind is Kind.ALL:
        return (5, 0)
    kind = _TELLING.index(pattern.kind)
    glob = pattern.glob
    if glob is None:
        return (0 if pattern.low == pattern.high else 1, kind)
    if glob.is_exact:
        return (0, kind)
    return (2, kind) if glob.prefix or glob.suffix else (4, kind)


def _blocks_of(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The range as blocks: how many of the last bits are free, and the bits before them."""
    while low <= high:
        free = (low & -low).bit_length() - 1 if low else high.bit_length()
        while (low | ((1 << free) - 1)) > high:
            free -= 1
        yield free, low >> free
        low += 1 << free
