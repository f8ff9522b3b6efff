"""Patterns of allow-lists against a stranger's name, compared with a table of all placements."""

from proxyd.config.globs import matches

WORDS = (b"*", b"?", b"**", b"\xff", b"[a-z]", b"\\", b"CN=*,O=?")
# The table takes their product in steps.
LONGEST = 64


def one_input(data):
    """A pattern, a 0xFF, and the text."""
    pattern, _, text = data.partition(b"\xff")
    pattern = pattern.decode("utf-8", "surrogateescape")[:LONGEST]
    text = text.decode("utf-8", "surrogateescape")[:LONGEST]
    assert matches(pattern, text) is matches_slowly(pattern, text)


def matches_slowly(pattern, text):
    """Row by row: whether the pattern so far fits the first n characters."""
    row = [True] + [False] * len(text)
    for sign in pattern:
        if sign == "*":
            first = row.index(True) if True in row else len(row)
            row = [at >= first for at in range(len(row))]
        else:
            fits = [sign in ("?", character) for character in text]
            row = [False, *(before and fit for before, fit in zip(row, fits, strict=False))]
    return row[-1]
