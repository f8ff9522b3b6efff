"""The rules file's text, cut into lines, fields and pieces; what they mean is not known here.

Blanks part fields; commas part pieces that are alternatives, `&` those that belong together. A
field goes on behind a comma and blanks. Double quotes keep all of these together, and `#`, which
otherwise begins a comment; two of them in quotes are one. A backslash at the end of a line goes on
with the next one, but not in quotes or in a comment.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from proxyd.config.quoting import excerpt

LONGEST_FIELD: Final = 4096
MOST_ALTERNATIVES: Final = 256
MOST_FIELDS: Final = 1100  # of one line; a set may have 1,024 words
_MOST_TOGETHER: Final = 8  # patterns joined by &

_PART: Final = re.compile(
    r"""(?P<blanks>[ \t]+)|(?P<comment>\#.*)|(?P<joint>[,&])|"(?P<quoted>(?:[^"]|"")*)(?P<end>"?)"""
    r"""|(?P<goes_on>\\$)|(?P<plain>(?:[^\s,&"\#\\]|\\(?!$))+)"""
)
_BACKSLASH_AND_BLANKS: Final = re.compile(r"\\[ \t]+$")


class Place(NamedTuple):
    """Both count from 1."""

    line: int
    column: int


class Unclear(Exception):
    """Something in the file that cannot be understood, and what stands for it."""

    def __init__(self, place: Place, expected: str, *, key: str = "") -> None:
        super().__init__(place, expected)
        self.place = place
        self.expected = expected
        self.key = key


@dataclass(slots=True)
class Piece:
    """`joint` is what stands before it: "," or "&", or "" for the first of a field."""

    text: str
    joint: str
    place: Place


@dataclass(slots=True)
class Field:
    """`text` is how it stands in the file, without blanks behind commas."""

    pieces: list[Piece]
    text: str
    place: Place

    @property
    def word(self) -> str:
        """What it says, if it is one word; "" if it is several."""
        return self.pieces[0].text if len(self.pieces) == 1 else ""


@dataclass(slots=True)
class Line:
    """The fields of one rule, which may stand in several lines of the file; `end` is behind them.

    `unclear` is what keeps it from being read.
    """

    place: Place
    fields: list[Field]
    end: Place
    unclear: Unclear | None = None


def lines_of(text: str) -> Iterator[Line]:
    """Each that has anything but a comment in it. None of them raises."""
    return _Reader(text).lines()


class _Reader:
    """Reads on, one line of the file after the other."""

    def __init__(self, text: str) -> None:
        self._rows = text.split("\n")
        self._at = 0  # in _rows
        self._fields: list[Field] = []
        self._begun = False  # a field, which goes on
        self._joint = ""  # which stands behind what was read last

    def lines(self) -> Iterator[Line]:
        while self._at < len(self._rows):
            begins = self._at + 1
            line = Line(Place(begins, 1), [], Place(begins, 1))
            self._fields, self._begun, self._joint = line.fields, False, ""
            try:
                while self._goes_on():
                    pass
            except Unclear as unclear:
                line.unclear = unclear
                self._skip()
            line.end = Place(self._at, len(self._row(self._at - 1).rstrip()) + 1)
            if line.fields:
                line.place = line.fields[0].place
            if line.fields or line.unclear:
                yield line

    def _row(self, number: int) -> str:
        return self._rows[number].removesuffix("\r")

    def _skip(self) -> None:
        """Passes over what belongs to a line that cannot be read."""
        while self._row(self._at - 1).rstrip().endswith("\\") and self._at < len(self._rows):
            self._at += 1

    def _goes_on(self) -> bool:
        """Reads one line of the file; whether the next one belongs to it. Raises Unclear."""
        row = self._row(self._at)
        self._at += 1
        number, position = self._at, 0
        _demand_printable(row, number)
        while position < len(row):
            part = _PART.match(row, position)
            assert part is not None  # each printable character is in one of its branches
            place, position = Place(number, position + 1), part.end()
            if part["comment"]:
                break
            if part["goes_on"]:
                if self._at == len(self._rows):
                    raise Unclear(place, "another line behind the backslash")
                self._part()
                return True
            if part["plain"] and _BACKSLASH_AND_BLANKS.match(row, position - 1):
                expected = "nothing behind the backslash that ends the line, found blanks"
                raise Unclear(Place(number, position), expected)
            self._take(part, place)
        if self._joint:
            raise Unclear(
                Place(number, len(row) + 1), f'something behind the "{self._joint}" of the line'
            )
        return False

    def _take(self, part: re.Match[str], place: Place) -> None:
        match part.lastgroup:
            case "blanks":
                self._part()
            case "joint":
                self._join(part[0], place)
            case "plain":
                self._add(part[0], part[0], place)
            case _:
                if not part["end"]:
                    raise Unclear(place, "a closing '\"' on the same line")
                self._add(part["quoted"].replace('""', '"'), part[0], place)

    def _part(self) -> None:
        """Blanks end a field, but not behind a comma."""
        self._begun = self._begun and self._joint != ""

    def _join(self, joint: str, place: Place) -> None:
        if self._joint or not self._begun:
            raise Unclear(place, f'something before the "{joint}"')
        self._joint = joint
        field = self._fields[-1]
        field.text += joint
        if len(field.pieces) >= MOST_ALTERNATIVES:
            raise Unclear(place, f"at most {MOST_ALTERNATIVES} alternatives in one column")

    def _add(self, text: str, raw: str, place: Place) -> None:
        if not self._begun:
            if len(self._fields) == MOST_FIELDS:
                raise Unclear(place, f"at most {MOST_FIELDS} columns in one line")
            self._fields.append(Field([Piece(text, "", place)], raw, place))
            self._begun = True
        else:
            field = self._fields[-1]
            field.text += raw
            if self._joint:
                field.pieces.append(Piece(text, self._joint, place))
            else:
                field.pieces[-1].text += text
        self._joint = ""
        if len(self._fields[-1].text) > LONGEST_FIELD:
            raise Unclear(place, f"a column of at most {LONGEST_FIELD} characters")


def _demand_printable(row: str, number: int) -> None:
    if row.isprintable():  # the usual case
        return
    for column, character in enumerate(row, 1):
        if character.isprintable() or character == "\t":
            continue
        place = Place(number, column)
        if "\ud800" <= character <= "\udfff":
            raise Unclear(place, "text in UTF-8, found a byte that is none")
        raise Unclear(place, f"characters that are seen, found U+{ord(character):04X}")


def together(field: Field) -> list[list[Piece]]:
    """The alternatives of a field, each with what belongs together. Raises Unclear."""
    found: list[list[Piece]] = []
    for piece in field.pieces:
        if piece.joint == "&":
            found[-1].append(piece)
            if len(found[-1]) > _MOST_TOGETHER:
                raise Unclear(piece.place, f'at most {_MOST_TOGETHER} conditions joined by "&"')
        else:
            found.append([piece])
    return found


def alternatives(field: Field, key: str) -> list[Piece]:
    """The same of a column that knows no `&`."""
    for piece in field.pieces:
        if piece.joint == "&":
            raise Unclear(
                piece.place,
                f'"," or a blank before {excerpt(piece.text)}, found "&", which joins conditions of'
                " the second column alone",
                key=key,
            )
    return field.pieces
