"""The tables and the plot of a benchmark."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ARITHMETIC = "arithmetic alone"
"""Label of the baseline of all ratios: the run's arithmetic in one process."""


@dataclass(frozen=True)
class Measured:
    """One measurement.

    Attributes:
        label: What was measured.
        strategy: Duration of the strategy, in seconds.
        wall: Duration of `flwr run`, in seconds; None without `flwr run`.
        cpu: CPU time of the whole machine, in seconds.
        memory: Peak memory over the baseline, in bytes.
        eval_acc: Accuracy after the last round, from 0 to 1.
    """

    label: str
    strategy: float
    wall: float | None
    cpu: float
    memory: int
    eval_acc: float

    def as_json(self) -> dict[str, Any]:
        """Return the measurement's entry in results.json."""
        return asdict(self)


def medians(measured: Sequence[Measured]) -> list[Measured]:
    """Return one measurement for each label, in order of first appearance, with the median of each value."""
    labels = dict.fromkeys(each.label for each in measured)
    return [_median(label, [each for each in measured if each.label == label]) for label in labels]


def _median(label: str, measured: list[Measured]) -> Measured:
    walls = [each.wall for each in measured if each.wall is not None]
    return Measured(
        label=label,
        strategy=statistics.median(each.strategy for each in measured),
        wall=statistics.median(walls) if walls else None,
        cpu=statistics.median(each.cpu for each in measured),
        memory=int(statistics.median(each.memory for each in measured)),
        eval_acc=statistics.median(each.eval_acc for each in measured),
    )


def runs_table(measured: Sequence[Measured]) -> str:
    """Return a Markdown table of runs: medians, and ratios to the arithmetic alone; empty if there are no runs."""
    rows = medians(measured)
    baseline = next((row.strategy for row in rows if row.label == ARITHMETIC), None)
    lines = [
        "| what | strategy, s | to the arithmetic | `flwr run`, s | CPU, s | peak memory, GiB | eval_acc |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        ratio = f"{row.strategy / baseline:.2f}" if baseline else "-"
        wall = f"{row.wall:.1f}" if row.wall is not None else "-"
        lines.append(
            f"| {row.label} | {row.strategy:.1f} | {ratio} | {wall} | {row.cpu:.0f} "
            f"| {row.memory / 2**30:.1f} | {row.eval_acc:.3f} |"
        )
    return "\n".join(lines) if rows else ""


def trips_table(trips: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of the round trips of no-op messages; empty if there are none."""
    rows = [
        f"| {trip['fleet']} | {trip['nodes']} | {trip['median'] * 1000:.0f} | {trip['p95'] * 1000:.0f} |"
        for trip in trips
    ]
    head = ["| fleet | messages at a time | median, ms | 95th percentile, ms |", "| --- | ---: | ---: | ---: |"]
    return "\n".join(head + rows) if rows else ""


def idle_table(idle: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of the cost of idle fleets; empty if there are none."""
    rows = [f"| {label} | {cost['cores']:.1%} | {cost['memory'] / 2**30:.1f} |" for label, cost in idle.items()]
    head = ["| executor | CPU while idle, of one core | memory while idle, GiB |", "| --- | ---: | ---: |"]
    return "\n".join(head + rows) if rows else ""


def plot(measured: Sequence[Measured], path: Path) -> None:
    """Write a PNG with a bar for each label: the median duration of the strategy."""
    import matplotlib as mpl  # noqa: PLC0415  # slow to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = medians(measured)[::-1]
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(rows) + 1.2), layout="constrained")
    colors = ["#2a6f4e" if "run" in row.label else "#9aa5a0" for row in rows]
    bars = axes.barh([row.label for row in rows], [row.strategy for row in rows], color=colors)
    axes.bar_label(bars, fmt="%.0f s", padding=4)
    axes.set_xlabel("seconds of the strategy: three rounds, ten nodes")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    figure.savefig(path, dpi=150)
    plt.close(figure)
