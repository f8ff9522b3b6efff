"""The configuration file's syntax: text to entries, and values back to text.

It is libvirt's own syntax, so that a file written for virtproxyd loads unchanged; every accepted
and every refused form follows docs/protocol/configuration.md, section 2. The reader is one pass of
statement, separator, statement …; that shape alone explains the odd corners of its
table, such as a file of nothing but blank lines being an error while an empty one is not.
"""

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

# docs/protocol/configuration.md, section 2. Who reads the file checks its size first; here it is
# only the last guard.
MAX_FILE_BYTES: Final = 10 * 1024 * 1024
MAX_INTEGER: Final = 2**63 - 1
# No key takes a list of lists, but they parse; a bound keeps the reader off Python's stack limit.
MAX_NESTING: Final = 16
# A shorter rest of the file cannot hold an opening and a closing triple quote with anything behind
# it, and libvirt then reads two plain quotes (docs/protocol/configuration.md, section 2).
_TRIPLE_QUOTE_NEEDS: Final = 7

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NUMBER: Final = re.compile(r"([+-]?)([0-9]*)")
_BLANKS: Final = re.compile(r"[ \t]*")
_BLANKS_AND_LINES: Final = re.compile(r"[ \t\r\n]*")
_REST_OF_LINE: Final = re.compile(r"[^\r\n]*")
_LINE_END: Final = re.compile(r"[\r\n]")
# Where reading goes on behind something that cannot be read.
_BEGINS_ENTRY: Final = re.compile(r"^[ \t]*(?=[A-Za-z][A-Za-z0-9_]*[ \t]*=)", re.MULTILINE)
MOST_FAULTS: Final = 100  # of one file; whoever mends so many looks again

Content: TypeAlias = int | str | tuple["Content", ...]


class ConfigError(Exception):
    """The file, or what stands in for it, says something that cannot be obeyed.

    `line` and `column` count from 1; both are 0 when there is no file, as for the environment.
    `key` is whose value it is, as far as that can be told.
    """

    def __init__(self, path: str, line: int, column: int, expected: str, key: str = "") -> None:
        super().__init__(path, line, column, expected)
        self.key = key
        self.path = path
        self.line = line
        self.column = column
        self.expected = expected

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        return f"{where}: expected {self.expected}"


@dataclass(frozen=True, slots=True)
class Value:
    """What stands behind a `=` or in a list, and where.

    `signed` tells a number written with a minus: libvirt refuses even `-0` for an unsigned key.
    """

    content: "int | str | tuple[Value, ...]"
    line: int
    column: int
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key = value` of the file, with the place of its key."""

    key: str
    value: Value
    line: int
    column: int


def parse(text: str, path: str) -> list[Entry]:
    """Return every entry in the file's order, repeated keys included: the first one counts.

    Raises ConfigError, and nothing else, for a text that is not in the syntax.
    """
    entries, faults = parse_all(text, path, most=1)
    if faults:
        raise faults[0]
    return entries


def parse_all(
    text: str, path: str, *, most: int = MOST_FAULTS
) -> tuple[list[Entry], list[ConfigError]]:
    """Return every entry that can be read, and what keeps others from it, `most` at the most.

    Behind something that is not in the syntax, reading goes on at the next line that begins as an
    entry does: the rest of a broken list or text is no further fault.
    """
    if _too_long(text):
        return [], [ConfigError(path, 1, 1, f"a file of at most {MAX_FILE_BYTES} bytes")]
    reader, faults = _Reader(text, path), list[ConfigError]()
    while True:
        try:
            reader.read_entries()
        except ConfigError as error:
            error.key = reader.key
            faults.append(error)
            if len(faults) < most and reader.skip():
                continue
        return reader.entries, faults


def render(content: Content) -> str:
    """Write a value so that `parse` reads the same one; ValueError if the syntax cannot say it."""
    match content:
        case int():
            return str(content)
        case str():
            return _quoted(content)
        case ():
            return "[]"
        case _:
            return f"[ {', '.join(render(item) for item in content)} ]"


def _quoted(text: str) -> str:
    one_line = not _LINE_END.search(text)
    if one_line and '"' not in text and "\0" not in text:
        return f'"{text}"'
    if one_line and "'" not in text and "\0" not in text:
        return f"'{text}'"
    # There are no escapes, so the end must not run into the closing quotes.
    if "\0" in text or '"""' in text or text.endswith('"'):
        raise ValueError(f"no quotes of the configuration syntax can hold {text!r}")
    return f'"""{text}"""'


def _too_long(text: str) -> bool:
    if len(text) * 4 <= MAX_FILE_BYTES:  # four bytes is the longest character of UTF-8
        return False
    return _byte_count(text) > MAX_FILE_BYTES


def _byte_count(text: str) -> int:
    # A byte that was no UTF-8 arrives as one lone surrogate, and "replace" counts it as one byte.
    return len(text.encode("utf-8", "replace"))


class _Reader:
    """A position in the text that only moves forward, one method for each part of the syntax."""

    __slots__ = ("_began", "_line", "_line_start", "_path", "_pos", "_seen", "_text", "entries")

    def __init__(self, text: str, path: str) -> None:
        self.entries: list[Entry] = []
        self._began = 0  # where the statement that is being read begins
        self._text = text
        self._path = path
        self._pos = 0
        self._seen = 0
        self._line = 1
        self._line_start = 0

    def read_entries(self) -> None:
        """Reads on to the end. Raises ConfigError."""
        while self._pos < len(self._text):
            self._take(_BLANKS_AND_LINES)
            self._began = self._pos
            if not self._comment():
                self.entries.append(self._entry())
                self._take(_BLANKS)
                self._comment()
            self._separator()

    @property
    def key(self) -> str:
        """Of the statement that is being read; "" where it has not even a name."""
        match = _NAME.match(self._text, self._began)
        return match[0] if match else ""

    def skip(self) -> bool:
        """Leaves out what could not be read; False when nothing comes behind it."""
        end_of_line = self._text.find("\n", self._began)
        found = _BEGINS_ENTRY.search(self._text, end_of_line + 1) if end_of_line >= 0 else None
        if found is None:
            return False
        self._pos = found.end()
        if self._pos < self._seen:  # it was looked for an end that is far behind this
            self._seen, self._line, self._line_start = 0, 1, 0
        return True

    def _entry(self) -> Entry:
        line, column = self._place()
        name = self._take(_NAME)
        if not name:
            raise self._wrong('a key name (an ASCII letter, then letters, digits or "_")')
        self._take(_BLANKS)
        if self._next() != "=":
            raise self._wrong('"=" behind the key name')
        self._pos += 1
        self._take(_BLANKS)
        return Entry(name, self._value(depth=0), line, column)

    def _separator(self) -> None:
        self._take(_BLANKS)
        if self._pos == len(self._text):
            return
        if self._next() == ";":
            self._pos += 1
        elif self._next() not in "\r\n":
            raise self._wrong('the end of the line, ";" or a comment behind the value')
        self._take(_BLANKS_AND_LINES)

    def _comment(self) -> bool:
        if self._next() != "#":
            return False
        self._take(_REST_OF_LINE)
        return True

    def _value(self, depth: int) -> Value:
        line, column = self._place()
        match self._next():
            case '"' | "'":
                return Value(self._string(), line, column)
            case "[":
                return Value(self._list(depth + 1), line, column)
            case "+" | "-" | "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9":
                negative = self._next() == "-"
                return Value(self._number(), line, column, signed=negative)
            case _:
                raise self._wrong("a value (a number, a string in quotes or a list)")

    def _number(self) -> int:
        start = self._pos
        match = _NUMBER.match(self._text, start)
        assert match is not None  # both of its parts may be empty
        self._pos = match.end()
        if not match[2]:
            raise self._wrong("digits behind the sign")
        # Length first: turning millions of digits into a number takes quadratic time.
        digits = match[2].lstrip("0") or "0"
        if len(digits) > len(str(MAX_INTEGER)) or int(digits) > MAX_INTEGER:
            self._pos = start
            raise self._wrong(f"a number of at most {MAX_INTEGER}", found="a larger one")
        return int(match[1] + digits)

    def _string(self) -> str:
        start = self._pos
        quote = self._text[start]
        if self._text.startswith('"""', start) and self._triple_quote_fits():
            quote = '"""'
        end = self._text.find(quote, start + len(quote))
        content = self._text[start + len(quote) : end]
        if end < 0 or (len(quote) == 1 and _LINE_END.search(content)):
            where = "" if len(quote) > 1 else " on the same line"
            raise self._wrong(f"a closing {quote}{where} for this string", found="")
        if "\0" in content:
            # No path, name or pattern can hold one, and in libvirt the string would end there.
            raise self._wrong("a string without NUL characters", found="")
        self._pos = end + len(quote)
        return content

    def _triple_quote_fits(self) -> bool:
        rest = self._text[self._pos : self._pos + _TRIPLE_QUOTE_NEEDS]
        return _byte_count(rest) >= _TRIPLE_QUOTE_NEEDS

    def _list(self, depth: int) -> tuple[Value, ...]:
        if depth > MAX_NESTING:
            raise self._wrong(f"lists nested at most {MAX_NESTING} deep", found="another one")
        items: list[Value] = []
        self._pos += 1
        while self._list_goes_on():
            items.append(self._value(depth))
            self._take(_BLANKS_AND_LINES)
            if self._next() == ",":
                self._pos += 1
            elif self._next() not in ("]", ""):
                raise self._wrong('"," or "]" behind a value of the list')
        self._pos += 1
        return tuple(items)

    def _list_goes_on(self) -> bool:
        self._take(_BLANKS_AND_LINES)
        if not self._next():
            raise self._wrong('"]" at the end of the list')
        return self._next() != "]"

    def _next(self) -> str:
        return self._text[self._pos : self._pos + 1]

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._pos)
        if match is None:
            return ""
        self._pos = match.end()
        return match[0]

    def _place(self) -> tuple[int, int]:
        """Line and column of the position. Lines end at LF only, as in libvirt's messages.

        Counts on from the place asked for last, so that all of them together cost one walk.
        """
        lines = self._text.count("\n", self._seen, self._pos)
        if lines:
            self._line += lines
            self._line_start = self._text.rfind("\n", self._seen, self._pos) + 1
        self._seen = self._pos
        return self._line, self._pos - self._line_start + 1

    def _wrong(self, expected: str, found: str | None = None) -> ConfigError:
        line, column = self._place()
        found = self._found() if found is None else found
        return ConfigError(self._path, line, column, expected + (found and f", found {found}"))

    def _found(self) -> str:
        character = self._next()
        if not character:
            return "the end of the file"
        if character in "\r\n":
            return "the end of the line"
        if character == '"':
            return "'\"'"
        return f'"{character}"' if character.isprintable() else f"U+{ord(character):04X}"
