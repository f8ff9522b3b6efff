"""A pattern with `*` and `?`, taken apart once: rules have thousands, all asked of one client.

It says the same as `config.globs.matches`. A regular expression is made for those alone that have
a `?`: of ten thousand patterns they would take a second to compile.
"""

import re
from typing import Final

from proxyd.config.globs import compiled

_WILD: Final = frozenset("*?")
_ANY: Final = "*"
_ONE: Final = "?"


class Glob:
    """`prefix` and `suffix` are what stands before the first and behind the last wildcard.

    Of a pattern without wildcards both are the whole.
    """

    __slots__ = ("_expression", "_middle", "is_exact", "prefix", "suffix", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.is_exact = _WILD.isdisjoint(text)
        self._expression: re.Pattern[str] | None = None
        self._middle: tuple[str, ...] = ()  # between the wildcards
        if self.is_exact:
            self.prefix = self.suffix = text
            return
        places = [place for place, character in enumerate(text) if character in _WILD]
        self.prefix, self.suffix = text[: places[0]], text[places[-1] + 1 :]
        if _ONE not in text:
            self._middle = tuple(filter(None, text[places[0] : places[-1]].split(_ANY)))
        else:
            self._expression = compiled(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Glob) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Glob({self.text!r})"

    @property
    def is_any(self) -> bool:
        """Whether every text fits."""
        return self.text != "" and not self.text.strip(_ANY)

    def matches(self, text: str) -> bool:
        """Tell whether the whole text fits. The text may come from a stranger."""
        if self.is_exact:
            return text == self.text
        if not (text.startswith(self.prefix) and text.endswith(self.suffix)):
            return False
        if self._expression is not None:
            return self._expression.fullmatch(text) is not None
        place, end = len(self.prefix), len(text) - len(self.suffix)
        for piece in self._middle:
            # The leftmost place is as good as any later one.
            place = text.find(piece, place, end)
            if place < 0:
                return False
            place += len(piece)
        return place <= end

    def takes(self, other: "Glob") -> bool:
        """Whether every text that fits `other` fits this one; False where that is not plain."""
        if self.text == other.text or self.is_any:
            return True
        if other.is_exact:
            return self.matches(other.text)
        if self.is_exact or self._expression is not None or self._middle:
            return False
        # One star: what all texts of the other begin and end with has to be enough.
        return other.prefix.startswith(self.prefix) and other.suffix.endswith(self.suffix)

    def witness(self) -> str:
        """Some text that fits."""
        return self.text.replace(_ANY, "").replace(_ONE, "x")
