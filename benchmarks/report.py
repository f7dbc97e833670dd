"""The tables and the plot of a benchmark."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ARITHMETIC = "arithmetic alone"
"""Label of what ratios are to: the run's arithmetic in one process."""


@dataclass(frozen=True)
class Measured:
    """One measurement: seconds of the strategy and of `flwr run`, CPU seconds, peak bytes, accuracy."""

    label: str
    strategy: float
    wall: float | None
    cpu: float
    memory: int
    eval_acc: float

    def as_json(self) -> dict[str, Any]:
        """Return the measurement as it stands in results.json."""
        return asdict(self)


def medians(measured: Sequence[Measured]) -> list[Measured]:
    """Return one measurement per label, in order of first appearance: the median of each figure."""
    labels = dict.fromkeys(each.label for each in measured)
    return [_median(label, [each for each in measured if each.label == label]) for label in labels]


def _median(label: str, of: list[Measured]) -> Measured:
    walls = [each.wall for each in of if each.wall is not None]
    return Measured(
        label=label,
        strategy=statistics.median(each.strategy for each in of),
        wall=statistics.median(walls) if walls else None,
        cpu=statistics.median(each.cpu for each in of),
        memory=int(statistics.median(each.memory for each in of)),
        eval_acc=statistics.median(each.eval_acc for each in of),
    )


def runs_table(measured: Sequence[Measured]) -> str:
    """Return a Markdown table of runs: medians, and ratios to the arithmetic alone. Empty where there is no run."""
    rows = medians(measured)
    floor = next((row.strategy for row in rows if row.label == ARITHMETIC), None)
    lines = [
        "| what | strategy, s | to the arithmetic | `flwr run`, s | CPU, s | peak memory, GiB | eval_acc |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        ratio = f"{row.strategy / floor:.2f}" if floor else "-"
        wall = f"{row.wall:.1f}" if row.wall is not None else "-"
        lines.append(
            f"| {row.label} | {row.strategy:.1f} | {ratio} | {wall} | {row.cpu:.0f} "
            f"| {row.memory / 2**30:.1f} | {row.eval_acc:.3f} |"
        )
    return "\n".join(lines) if rows else ""


def trips_table(trips: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of the round trips of messages that ask for nothing. Empty where there is none."""
    rows = [
        f"| {trip['fleet']} | {trip['nodes']} | {trip['median'] * 1000:.0f} | {trip['p95'] * 1000:.0f} |"
        for trip in trips
    ]
    head = ["| fleet | messages at a time | median, ms | 95th percentile, ms |", "| --- | ---: | ---: | ---: |"]
    return "\n".join(head + rows) if rows else ""


def idle_table(idle: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of what fleets cost that have nothing to do. Empty where there is none."""
    rows = [f"| {label} | {cost['cores']:.1%} | {cost['memory'] / 2**30:.1f} |" for label, cost in idle.items()]
    head = ["| executor | CPU while idle, of one core | memory while idle, GiB |", "| --- | ---: | ---: |"]
    return "\n".join(head + rows) if rows else ""


def plot(measured: Sequence[Measured], path: Path) -> None:
    """Draw the strategy seconds as bars."""
    import matplotlib as mpl  # noqa: PLC0415  slow to import, and not needed to measure

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = medians(measured)[::-1]
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(rows) + 1.2), layout="constrained")
    ours = ["#2a6f4e" if "run" in row.label else "#9aa5a0" for row in rows]
    bars = axes.barh([row.label for row in rows], [row.strategy for row in rows], color=ours)
    axes.bar_label(bars, fmt="%.0f s", padding=4)
    axes.set_xlabel("seconds of the strategy: three rounds, ten nodes")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    figure.savefig(path, dpi=150)
    plt.close(figure)
