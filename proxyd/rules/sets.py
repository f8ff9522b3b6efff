"""Named sets of words: `set NAME = word word …`, and what they come to."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from proxyd.config.quoting import excerpt
from proxyd.rules.field import Line, Piece, Place, Unclear, alternatives
from proxyd.rules.grant import Level
from proxyd.rules.nearest import found, unknown

Unfit: TypeAlias = Callable[[str], str | None]  # what is wrong with a word, or None

OPERATE: Final = "operate"
LEVELS: Final = ("deny", "read", OPERATE, "write")
IN_SETS: Final = (Level.READ.value, OPERATE)  # levels that may be words of a set
MOST_SETS: Final = 256
MOST_WORDS: Final = 1024  # of one set, with those of the sets in it
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_RESERVED: Final = (*LEVELS, "all", "set")
_WORD: Final = re.compile(r"[A-Za-z0-9_*?-]+:[A-Za-z0-9_*?:!|-]+")


@dataclass(frozen=True, slots=True)
class NamedSet:
    """`words` are permissions, calls of programs, read and operate: no names of sets any more."""

    name: str
    words: tuple[str, ...]
    place: Place


class Sets:
    """Those of one file, as they are found. `broken` are names that a line with a fault had."""

    def __init__(self, unfit: Unfit | None) -> None:
        self._unfit = unfit or _shapeless
        self._written: dict[str, tuple[Place, list[Piece]]] = {}
        self.broken: set[str] = set()
        self.known: dict[str, NamedSet] = {}

    def names(self) -> tuple[str, ...]:
        return tuple(self._written)

    def add(self, line: Line) -> None:
        """Takes a line that begins with `set`. Raises Unclear."""
        name, pieces = _parted(line)
        self.broken.add(name.text)
        if not _NAME.fullmatch(name.text):
            raise Unclear(
                name.place,
                'a name of at most 64 letters, digits, "_" and "-", with a letter in front'
                + found(name.text),
                key="set",
            )
        if name.text in _RESERVED:
            raise Unclear(
                name.place,
                f'another name than "{name.text}", which has a meaning of its own',
                key="set",
            )
        if name.text in self._written:
            line_before = self._written[name.text][0].line
            raise Unclear(
                name.place, f'one set "{name.text}", found the one of line {line_before}', key="set"
            )
        if not pieces:
            raise Unclear(line.end, 'words behind the "=", as domain:start', key=name.text)
        if len(self._written) == MOST_SETS:
            raise Unclear(name.place, f"at most {MOST_SETS} sets", key="set")
        self._written[name.text] = (name.place, pieces)

    def complete(self) -> Iterator[Unclear]:
        """Finds out what each comes to; gives what cannot be."""
        for name, (_, pieces) in self._written.items():
            try:
                for piece in pieces:
                    self._judge(piece, name)
            except Unclear as unclear:
                yield unclear
            else:
                self.broken.discard(name)
        for name in self._written:
            under_way: list[str] = []
            try:
                if name not in self.broken:
                    self._expand(name, under_way)
            except Unclear as unclear:
                self.broken.update(under_way)  # all of a circle is told of once
                yield unclear

    def reached_from(self, names: Iterable[str]) -> frozenset[str]:
        """These, and all sets that are in them."""
        reached, ahead = set[str](), [*names]
        while ahead:
            name = ahead.pop()
            if name not in reached and name in self._written:
                reached.add(name)
                ahead += [piece.text for piece in self._written[name][1] if ":" not in piece.text]
        return frozenset(reached)

    def _judge(self, piece: Piece, name: str) -> None:
        """Raises Unclear for a word that means nothing."""
        word = piece.text
        if ":" in word:
            wrong = self._unfit(word)
            if wrong is not None:
                expected = "words of a set (domain:start, qemu:*, read, operate or another set)"
                raise Unclear(piece.place, f"{expected}{found(word)}: {wrong}", key=name)
        elif word in (*LEVELS, "all") and word not in IN_SETS:
            raise Unclear(
                piece.place,
                f"permissions, calls, sets, read or operate, found {excerpt(word)}, which is no"
                " part of a set",
                key=name,
            )
        elif word not in IN_SETS and word not in self._written and word not in self.broken:
            known = (*IN_SETS, *self._written)
            raise Unclear(
                piece.place,
                "words of a set (domain:start, qemu:*, read, operate or another set)"
                + unknown(word, known),
                key=name,
            )

    def _expand(self, name: str, under_way: list[str]) -> Mapping[str, None]:
        """Its words in their order. Raises Unclear for a circle, and for too many."""
        if name in self.known:
            return dict.fromkeys(self.known[name].words)
        under_way.append(name)
        place, pieces = self._written[name]
        words: dict[str, None] = {}
        for piece in pieces:
            word = piece.text
            if ":" in word or word in IN_SETS:
                words[word] = None
            elif word in under_way:
                raise Unclear(
                    piece.place,
                    f"sets that are not inside of themselves, found {excerpt(word)}",
                    key=name,
                )
            elif word not in self.broken:
                words |= self._expand(word, under_way)
        if len(words) > MOST_WORDS:
            raise Unclear(place, f"at most {MOST_WORDS} words, found {len(words)}", key=name)
        under_way.pop()
        self.known[name] = NamedSet(name, tuple(words), place)
        return words


def _parted(line: Line) -> tuple[Piece, list[Piece]]:
    """The name of a set and its words. Raises Unclear."""
    pieces = [piece for field in line.fields[1:] for piece in alternatives(field, "set")]
    if not pieces:
        raise Unclear(line.end, 'a name behind "set", as set NAME = domain:start', key="set")
    name, *words = pieces
    text, equals, rest = name.text.partition("=")
    if not equals:
        equals = words[0].text[:1] if words else ""
        if equals != "=":
            place = words[0].place if words else line.end
            raise Unclear(place, '"=" behind the name of the set', key=text)
        rest = words[0].text[1:]
        name, words = words[0], words[1:]
    first = [Piece(rest, "", name.place)] if rest else []
    return Piece(text, "", pieces[0].place), [*first, *words]


def _shapeless(word: str) -> str | None:
    if _WORD.fullmatch(word):
        return None
    return "neither OBJECT:PERMISSION nor PROGRAM:CALL"
