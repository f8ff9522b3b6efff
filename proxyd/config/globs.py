"""Patterns of log filters and allow-lists: `*` is any run of characters, `?` is exactly one.

The rules are those of `g_pattern_match_simple` (docs/protocol/configuration.md, section 3): the
whole text must match, case counts, and nothing else is special, neither brackets nor backslashes.
"""

import re
from functools import lru_cache

# Patterns come from the configuration or from virt-admin, so there are few; the texts change.
_MOST_REMEMBERED = 256


def matches(pattern: str, text: str) -> bool:
    """Tell whether the whole text fits the pattern. The text may come from a stranger."""
    return _remembered(pattern).fullmatch(text) is not None


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern for `fullmatch`; takes a tenth of a millisecond."""
    # The leftmost place for each piece between two stars is as good as any later one. The atomic
    # groups say so: no piece is ever placed again, where a row of `.*` would try all combinations.
    first, *rest = (re.escape(piece).replace(r"\?", ".") for piece in pattern.split("*"))
    if not rest:
        return re.compile(first, re.DOTALL)
    *middle, last = rest
    searches = "".join(f"(?>.*?{piece})" for piece in middle if piece)
    return re.compile(f"{first}{searches}.*{last}", re.DOTALL)


_remembered = lru_cache(maxsize=_MOST_REMEMBERED)(compiled)
