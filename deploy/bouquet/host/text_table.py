"""Tables for the terminal, as plain text."""

import io
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

MAX_WIDTH = 100_000
"""Characters per line: so many that no cell is wrapped or truncated, whatever the terminal."""


def text_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], justify: Literal["left", "right"] = "left"
) -> str:
    """Return a header line and a line for each row, without borders and with two spaces between columns.

    Args:
        columns: The names of the columns.
        rows: The cells of each row, one for each column. Cells are shown as they are: markup has no effect.
        justify: The side that names and cells are aligned to.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(Text(name), justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=MAX_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
