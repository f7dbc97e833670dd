"""The plot of a run: accuracy and loss by round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from app.strategy import Round

INK, GRID = "#333333", "#e4e4e4"
_LINES = {
    "train": ("train, on the nodes", "#d97706", "o"),
    "evaluate": ("evaluate, on the nodes", "#2563eb", "s"),
    "central": ("global model, test split", "#15803d", "D"),
}


def plot_history(rounds: Sequence[Round], file: Path) -> None:
    """Write a PNG that shows accuracy and loss by round.

    Args:
        rounds: The run's rounds.
        file: Path of the PNG.

    Raises:
        OSError: The file cannot be written.
    """
    style: Any = {
        "font.size": 10,
        "axes.edgecolor": "#999999",
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with plt.rc_context(style):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
        _draw(left, rounds, "accuracy", {"train": "train_acc", "evaluate": "eval_acc", "central": "eval_acc"})
        _draw(right, rounds, "loss", {"train": "train_loss", "evaluate": "eval_loss", "central": "eval_loss"})
        left.yaxis.set_major_formatter("{x:.0%}")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(file, dpi=150, format="png")
        plt.close(figure)


def _draw(axes: Any, rounds: Sequence[Round], quantity: str, keys: dict[str, str]) -> None:
    """Draw one panel: a line for each source, and a band from the worst to the best node's evaluation."""
    lines: dict[str, list[tuple[int, float]]] = {source: [] for source in _LINES}
    band = []
    for each in rounds:
        scores = {"train": each.train.metrics, "evaluate": each.evaluate.metrics, "central": each.central or {}}
        for source, key in keys.items():
            if key in scores[source]:
                lines[source].append((each.number, scores[source][key]))
        nodes = [values[keys["evaluate"]] for values in each.evaluate.nodes.values() if keys["evaluate"] in values]
        if nodes:
            band.append((each.number, min(nodes), max(nodes)))
    if band:
        numbers, worst, best = zip(*band, strict=True)
        color = _LINES["evaluate"][1]
        if len(band) == 1:  # an area needs two points
            numbers, worst, best = (numbers[0] - 0.05, numbers[0] + 0.05), worst * 2, best * 2
        axes.fill_between(numbers, worst, best, color=color, alpha=0.12, linewidth=0, label="evaluate, range of nodes")
    for source, points in lines.items():
        if points:
            label, color, marker = _LINES[source]
            numbers, values = zip(*points, strict=True)
            axes.plot(numbers, values, color=color, marker=marker, markersize=5, linewidth=1.8, label=label)
    axes.set_title(quantity.capitalize(), loc="left", fontweight="bold")
    axes.set_xlabel("round")
    axes.set_xlim(0.8, max((each.number for each in rounds), default=1) + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
