"""Text that came from outside, made fit for one line of a message or a comment."""

from typing import Final

_LONGEST_EXCERPT: Final = 60  # a file may hold ten megabytes of one string
_MOST_KEPT: Final = (
    4096  # characters of which the spelling is kept; strangers may send all there are
)


class _Spelling(dict[int, str]):
    """How a character is spelled, by its code: what a terminal would not show, in ASCII."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        spelled = character if character.isprintable() else ascii(character)[1:-1]
        if len(self) < _MOST_KEPT:
            self[code] = spelled
        return spelled


_NO_BREAK_SPACE: Final = "\xa0"  # in French before each colon
_SPELLING: Final = _Spelling({ord(_NO_BREAK_SPACE): _NO_BREAK_SPACE})


def one_line(text: str) -> str:
    """Return the text without anything that ends a line, steers a terminal, or hides what it says.

    Control characters, line ends, marks that reorder text and what has no width or no meaning are
    spelled out. A backslash stays: it can make a text ambiguous, but it cannot end a line. Who has
    the text from a stranger cuts it first: a character takes up to 0.2 µs.
    """
    if text.isprintable():  # the usual case
        return text
    return text.translate(_SPELLING)


def excerpt(text: str, longest: int = _LONGEST_EXCERPT) -> str:
    """Return the beginning of the text in quotes, on one line, and what is not seen spelled out."""
    rest = "…" if len(text) > longest else ""
    spelled = one_line(text[:longest]).replace(_NO_BREAK_SPACE, ascii(_NO_BREAK_SPACE)[1:-1])
    return f'"{spelled}{rest}"'


def shortened(text: str, longest: int) -> str:
    """Return the text; of one that is longer its beginning and its end, which says the most."""
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end]}… ({len(text) - longest} characters) …{text[-end:]}"
