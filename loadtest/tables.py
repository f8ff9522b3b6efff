"""Columns and numbers as text."""

from typing import Final

from .figures import Figure

NOTHING: Final = "–"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as they need to be: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in [head, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return "\n".join(lines)


def spread(figure: Figure | None, scale: float = 1.0, digits: int = 2) -> str:
    """A number with its lowest and highest round; from 100 on with a digit less."""
    if figure is None:
        return NOTHING
    numbers = [n * scale for n in (figure.value, figure.low, figure.high)]
    if max(map(abs, numbers)) >= 100:
        digits = max(0, digits - 1)
    # `z`: what rounds to zero has no sign.
    value, low, high = (f"{number:z.{digits}f}" for number in numbers)
    return f"{value} ({low}..{high})"


def us(nanoseconds: float) -> str:
    """Microseconds."""
    return f"{nanoseconds / 1e3:.1f}"


def size(count: int) -> str:
    """Bytes in the largest unit that they are a whole number of."""
    for name, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count % factor == 0:
            return f"{count // factor} {name}"
    return f"{count} bytes"
