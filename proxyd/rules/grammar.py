"""The rules file: text to rules, and all faults of it at once.

    WAY WHO WHAT MAY [OPTION …]
    set NAME = WORD …

docs/rules.md says for administrators what each column means. It is modelled on PostgreSQL's
pg_hba.conf: the first rule that fits decides, and nobody is let in whom none fits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from proxyd.config.grammar import MOST_FAULTS, ConfigError
from proxyd.config.quoting import excerpt
from proxyd.config.sources import Doubt
from proxyd.rules.field import Field, Line, Unclear, lines_of
from proxyd.rules.grant import Grant, Level
from proxyd.rules.nearest import unknown
from proxyd.rules.options import limits_of
from proxyd.rules.reading import uris_of, ways_of, who_of
from proxyd.rules.rule import Rule
from proxyd.rules.sets import LEVELS, OPERATE, NamedSet, Sets, Unfit

MAX_FILE_BYTES: Final = 10 * 1024 * 1024
MOST_RULES: Final = 20_000
_SET: Final = "set"
_LEVELS: Final = {level.value: level for level in (Level.DENY, Level.READ, Level.WRITE)}
_MEANT: Final = {
    "allow": "write",
    "permit": "write",
    "accept": "write",
    "trust": "write",
    "full": "write",
    "reject": "deny",
    "refuse": "deny",
    "drop": "deny",
    "none": "deny",
    "readonly": "read",
    "ro": "read",
    "rw": "write",
}
_COLUMNS: Final = (
    ("who", "who is meant (user:NAME, group:NAME, sasl:NAME, dn:SUBJECT … or all)"),
    ("what", "a URI (qemu:///system, qemu:* or all)"),
    ("may", "deny, read, operate, write or the name of a set"),
)

Remarks: TypeAlias = Callable[[Iterable[str]], Iterable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a file says. Where it has `faults`, the rules are those of the lines that have none.

    `sets` are by name; `sets_in_use` are those that rules, or sets in use, name. `doubts` are what
    is obeyed, and hardly meant.
    """

    path: str
    rules: tuple[Rule, ...]
    sets: Mapping[str, NamedSet]
    sets_in_use: frozenset[str]
    faults: tuple[ConfigError, ...]
    doubts: tuple[Doubt, ...]


def parse_rules(
    text: str, path: str, *, unfit: Unfit | None = None, remarks: Remarks | None = None
) -> Parsed:
    """Reads the whole file. Raises nothing; takes up to a second for the longest of files.

    `unfit` says what is wrong with a word of a set that has a colon, as the end of a sentence about
    it, or None; `remarks` what is hardly meant by the words of a set. `text` was decoded with
    "surrogateescape". One broken line is one fault, and 100 are the most.
    """
    return _File(path, unfit).read(text, remarks)


class _File:
    def __init__(self, path: str, unfit: Unfit | None) -> None:
        self._path = path
        self._sets = Sets(unfit)
        self._faults: list[ConfigError] = []

    def read(self, text: str, remarks: Remarks | None) -> Parsed:
        rules: list[Rule] = []
        if len(text.encode("utf-8", "surrogateescape")) > MAX_FILE_BYTES:
            expected = f"a file of at most {MAX_FILE_BYTES} bytes"
            self._faults.append(ConfigError(self._path, 1, 1, expected))
        else:
            lines = self._lines_of_rules(text)
            for unclear in self._sets.complete():
                self._fault(unclear)
            rules = list(self._rules(lines))
        self._faults.sort(key=lambda fault: (fault.line, fault.column))
        in_use = {rule.grant.name for rule in rules if rule.grant.level is Level.SET}
        return Parsed(
            path=self._path,
            rules=tuple(rules),
            sets=dict(self._sets.known),
            sets_in_use=self._sets.reached_from(in_use),
            faults=tuple(self._faults[:MOST_FAULTS]),
            doubts=tuple(self._doubts(remarks)),
        )

    def _fault(self, unclear: Unclear) -> None:
        line, column = unclear.place
        self._faults.append(ConfigError(self._path, line, column, unclear.expected, unclear.key))

    def _lines_of_rules(self, text: str) -> list[Line]:
        """Sets are taken in on the way. Ends where there are too many rules."""
        lines: list[Line] = []
        for line in lines_of(text):
            is_set = bool(line.fields) and line.fields[0].word == _SET
            if line.unclear is not None:
                self._fault(line.unclear)
                if is_set and len(line.fields) > 1:
                    self._sets.broken.add(line.fields[1].pieces[0].text.partition("=")[0])
            elif is_set:
                try:
                    self._sets.add(line)
                except Unclear as unclear:
                    self._fault(unclear)
            elif len(lines) == MOST_RULES:
                self._fault(Unclear(line.place, f"at most {MOST_RULES} rules"))
                break
            else:
                lines.append(line)
        return lines

    def _rules(self, lines: Iterable[Line]) -> Iterator[Rule]:
        for line in lines:
            if len(self._faults) >= 2 * MOST_FAULTS:  # nobody is told of more, by what comes first
                break
            try:
                rule = self._rule(line)
            except Unclear as unclear:
                self._fault(unclear)
            else:
                if rule is not None:
                    yield rule

    def _rule(self, line: Line) -> Rule | None:
        """None where its set has a fault, which has been told of. Raises Unclear."""
        ways = ways_of(line.fields[0])
        for number, (key, expected) in enumerate(_COLUMNS, 1):
            if len(line.fields) <= number:
                raise Unclear(line.end, f"{expected} in column {number + 1}", key=key)
        _, who, what, may, *options = line.fields
        patterns, uris = who_of(who), uris_of(what)
        grant = self._grant(may)
        limits = limits_of(options)
        if grant is None:
            return None
        if grant.level is Level.DENY and options:
            raise Unclear(
                options[0].place,
                f"no option in a rule that denies, found {excerpt(options[0].text)}",
                key="options",
            )
        return Rule(
            line=line.place.line,
            text=" ".join(field.text for field in line.fields),
            ways=ways,
            who=patterns,
            uris=uris,
            grant=replace(
                grant,
                sessions=limits.sessions,
                calls_per_s=limits.calls_per_s,
                idle_s=limits.idle_s,
                until_s=limits.until_s,
            ),
        )

    def _grant(self, field: Field) -> Grant | None:
        word = field.word
        if not word:
            raise Unclear(
                field.pieces[1].place,
                f"one word in column 4, found {excerpt(field.text)}; a set may have several",
                key="may",
            )
        if word in _LEVELS:
            return Grant(level=_LEVELS[word], name=word)
        if word == OPERATE:
            return Grant(level=Level.SET, name=word, words=(OPERATE,))
        if word in self._sets.known:
            return Grant(level=Level.SET, name=word, words=self._sets.known[word].words)
        if word in self._sets.broken:
            return None
        known = (*LEVELS, *self._sets.known)
        raise Unclear(
            field.place,
            "deny, read, operate, write or the name of a set" + unknown(word, known, _MEANT),
            key="may",
        )

    def _doubts(self, remarks: Remarks | None) -> Iterator[Doubt]:
        for known in sorted(self._sets.known.values(), key=lambda known: known.place):
            for words in remarks(known.words) if remarks is not None else ():
                line, column = known.place
                yield Doubt(self._path, line, column, known.name, f"set {known.name}: {words}")
