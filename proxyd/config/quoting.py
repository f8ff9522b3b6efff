"""Text that came from outside, made fit for one line of a message or a comment."""

from typing import Final

_LONGEST_EXCERPT: Final = 60  # a file may hold ten megabytes of one string


def one_line(text: str) -> str:
    """Return the text with its control characters and line ends spelled out.

    Who has it from a stranger cuts it first: a character takes up to 0.2 µs.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def excerpt(text: str, longest: int = _LONGEST_EXCERPT) -> str:
    """Return the beginning of the text in quotes, on one line."""
    rest = "…" if len(text) > longest else ""
    return f'"{one_line(text[:longest])}{rest}"'


def shortened(text: str, longest: int) -> str:
    """Return the text; of one that is longer its beginning and its end, which says the most."""
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end]}… ({len(text) - longest} characters) …{text[-end:]}"
