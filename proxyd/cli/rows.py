"""A table whose addresses stay whole: where a terminal is too narrow, each row is a few lines.

An address that is broken in two can neither be copied nor be searched for.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_GAP: Final = 2
_INDENT: Final = "    "
_NARROWEST: Final = 12  # of a column whose texts may be broken anywhere


@dataclass(frozen=True, slots=True)
class Column:
    """`whole`: its words are not broken, being addresses or numbers; spaces in it may be."""

    name: str
    whole: bool = False
    right: bool = False


@dataclass(slots=True)
class Rows:
    """What rich prints as a table, or as a block of lines for each row."""

    columns: Sequence[Column]
    rows: list[tuple[Text, ...]] = field(default_factory=list)

    def add(self, *cells: str | Text) -> None:
        self.rows.append(tuple(Text(each) if isinstance(each, str) else each for each in cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        narrowest = [self._narrowest(number) for number in range(len(self.columns))]
        if sum(narrowest) + _GAP * (len(narrowest) - 1) <= options.max_width:
            yield self._table(narrowest)
        else:
            for row in self.rows:
                yield from self._block(row, options.max_width)

    def _narrowest(self, number: int) -> int:
        column = self.columns[number]
        cells = [row[number].plain for row in self.rows]
        pieces = cells if column.right else [word for cell in cells for word in cell.split(" ")]
        longest = max(map(cell_len, pieces), default=0)
        whole = column.whole or column.right
        return max(len(column.name), longest if whole else min(longest, _NARROWEST))

    def _table(self, narrowest: Sequence[int]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column, width in zip(self.columns, narrowest, strict=True):
            table.add_column(
                column.name,
                overflow="fold",  # nothing is cut off
                min_width=width if column.whole else None,
                no_wrap=column.right,
                justify="right" if column.right else "left",
            )
        for row in self.rows:
            table.add_row(*row)
        return table

    def _block(self, row: Sequence[Text], width: int) -> Iterator[Text]:
        """As many cells in a line as go into it, each behind the name of its column."""
        line = Text()
        for column, cell in zip(self.columns, row, strict=True):
            if not cell.plain:
                continue
            first = column is self.columns[0]
            told = cell if first else Text.assemble((f"{column.name} ", "bold"), cell)
            begin = "" if first else _INDENT
            if line and line.cell_len + _GAP + told.cell_len <= width:
                line.append(" " * _GAP).append_text(told)
                continue
            if line:
                yield line
            line = Text(begin).append_text(told)
            if line.cell_len > width:
                *full, line = _wrapped(told, begin, width)
                yield from full
        if line:
            yield line


def _wrapped(told: Text, begin: str, width: int) -> list[Text]:
    """Broken at spaces; within a word only if it is longer than a line."""
    lines = textwrap.wrap(
        told.plain,
        max(width, len(_INDENT) + 1),
        initial_indent=begin,
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
    )
    return [Text(each, style=told.style) for each in lines] or [Text()]
