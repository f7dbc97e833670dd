"""What the terminal shows of a run's `metrics.json`: a table of rounds, and one of exchanges outside of rounds.

The columns are whatever metrics the app has. In a narrow terminal, the first metrics of the nodes stay.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bouquet.host.text_table import Column, fitting, text_table

Entry = Mapping[str, Any]
"""An object of `metrics.json`."""
PHASES = (("train", "trained", "train"), ("evaluate", "evaluated", "eval"))
"""The phases of a round, each with the heading for its nodes and one for metrics that both phases have."""
MAX_ROWS = 50
"""Rows of a table. Of a longer run, the last ones are shown."""
MAX_OTHERS = 6
"""Metrics without a column that a line shows."""
SMALL, LARGE = 1e-3, 1e6
"""Numbers between these are shown with four decimals, others with a power of ten."""


def rounds_table(rounds: Sequence[Entry], width: int) -> str:
    """Return the rounds of a `metrics.json` as a table.

    Args:
        rounds: The rounds, at least one.
        width: Characters per line.
    """
    shown = rounds[-MAX_ROWS:]
    values = {phase: [entry[phase]["metrics"] for entry in shown] for phase, *_ in PHASES}
    uses = Counter(name for phase in values for name in _names(values[phase]))
    columns = [Column("round", tuple(str(entry["round"]) for entry in shown))]
    for phase, done, label in PHASES:
        halves = [entry[phase] for entry in shown]
        if any(half["replies"] + half["failures"] for half in halves):
            columns.append(Column(done, tuple(map(_replies, halves))))
        columns += _metrics(values[phase], {name: f"{label} {name}" for name in uses if uses[name] > 1})
    central = [entry["central"] or {} for entry in shown]
    columns += _metrics(central, {name: f"central {name}" for name in _names(central)}, first_rank=len(uses) + 1)
    columns.append(Column("seconds", tuple(map(_seconds, shown))))
    return _table(columns, width, len(rounds) - len(shown), "rounds")


def exchanges_table(exchanges: Sequence[Entry], width: int) -> str:
    """Return the exchanges of an app with its own loop as a table: one row for each `send_and_receive`.

    Args:
        exchanges: The exchanges, at least one. Their metrics are means over the nodes.
        width: Characters per line.
    """
    shown = exchanges[-MAX_ROWS:]
    means = [entry["metrics"] for entry in shown]
    columns = [
        Column("exchange", tuple(str(entry["exchange"]) for entry in shown)),
        Column("type", tuple(str(entry["message-type"]) for entry in shown)),
        Column("nodes", tuple(map(_replies, shown))),
        *_metrics(means, {name: f"mean {name}" for name in _names(means)}),
        Column("seconds", tuple(map(_seconds, shown))),
    ]
    return _table(columns, width, len(exchanges) - len(shown), "exchanges")


def _table(columns: Sequence[Column], width: int, omitted: int, what: str) -> str:
    shown = fitting(columns, width)
    names = [column.name for column in shown]
    lines = [text_table(names, list(zip(*(column.cells for column in shown), strict=True)), justify="right")]
    if others := [f"{column.name} {column.cells[-1]}" for column in columns if column not in shown]:
        more = f" and {len(others) - MAX_OTHERS} more" if len(others) > MAX_OTHERS else ""
        lines.append(f"the other metrics, in the last row: {', '.join(others[:MAX_OTHERS])}{more}")
    if omitted:
        lines.append(f"not shown: the first {omitted} {what}")
    return "\n".join(lines)


def _metrics(values: Sequence[Entry], headings: Mapping[str, str], first_rank: int = 1) -> list[Column]:
    """Return a column for each metric; those further right have higher ranks.

    Args:
        values: The metrics of each row.
        headings: Headings that are not the metric's name, by name.
        first_rank: The rank of the first column.
    """
    return [
        Column(headings.get(name, name), tuple(_number(row.get(name)) for row in values), rank)
        for rank, name in enumerate(_names(values), first_rank)
    ]


def _names(values: Sequence[Entry]) -> list[str]:
    """Return the names of metrics in the order in which they first appear."""
    return list(dict.fromkeys(name for row in values for name in row))


def _replies(half: Entry) -> str:
    sent = half["replies"] + half["failures"]
    return f"{half['replies']} of {sent}" if sent else "-"


def _seconds(entry: Entry) -> str:
    return f"{entry['seconds']:.1f}"


def _number(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} values"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or SMALL <= abs(value) < LARGE else f"{value:.3e}"
    return str(value)
