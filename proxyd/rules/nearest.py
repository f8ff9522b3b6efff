"""What somebody may have meant by a word that is not known."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from proxyd.config.quoting import excerpt

# To look for a word among hundreds takes a millisecond. Beyond this it is no slip of the fingers.
_LONGEST_SLIP: Final = 40


def unknown(word: str, known: Iterable[str], meant: Mapping[str, str] | None = None) -> str:
    """How it goes on behind what was expected: what was found, and what may have been meant.

    `meant` has words that other programs use for the same.
    """
    guess = (meant or {}).get(word.lower(), "")
    if not guess and len(word) <= _LONGEST_SLIP:
        close = get_close_matches(word.lower(), tuple(known), n=1)
        guess = close[0] if close else ""
    return found(word, guess)


def found(word: str, guess: str = "") -> str:
    """The same where it is known what was meant."""
    return f", found {excerpt(word)}" + (f"; did you mean {excerpt(guess)}?" if guess else "")
