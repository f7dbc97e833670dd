"""Tables for the terminal, as plain text."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

MAX_WIDTH = 100_000
"""Characters per line: so many that no cell is wrapped or truncated, whatever the terminal."""
GAP = 2
"""Spaces between two columns."""


@dataclass(frozen=True)
class Column:
    """A column of a table that may have to fit a narrow terminal.

    Attributes:
        name: Its heading.
        cells: Its cells, one for each row.
        rank: 0 for a column that is always shown. Of the others, those with the highest rank are left out first.
    """

    name: str
    cells: tuple[str, ...]
    rank: int = 0

    @property
    def width(self) -> int:
        """The characters that it takes."""
        return max(map(len, (self.name, *self.cells)))


def text_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], justify: Literal["left", "right"] = "left"
) -> str:
    """Return a header line and a line for each row, without borders and with two spaces between columns.

    Args:
        columns: The names of the columns.
        rows: The cells of each row, one for each column. Cells are shown as they are: markup has no effect.
        justify: The side that names and cells are aligned to.
    """
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name in columns:
        table.add_column(Text(name), justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=MAX_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """Return the columns that fit a width, in their order; columns of rank 0 stay in any case.

    Args:
        columns: The columns.
        width: Characters per line.
    """
    shown = list(columns)
    while sum(column.width + GAP for column in shown) - GAP > width and any(column.rank for column in shown):
        shown.remove(max(reversed(shown), key=lambda column: column.rank))
    return shown
