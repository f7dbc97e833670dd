"""The plot of a run: one panel for each kind of metric, by round."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bouquet.record.entries import Round

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GRID = "#333333", "#e4e4e4"
SOURCES = {
    "train": ("train, on the nodes", "#d97706", "o"),
    "evaluate": ("evaluate, on the nodes", "#2563eb", "s"),
    "central": ("central evaluation", "#15803d", "D"),
}
MAX_PANELS = 9
PANELS_PER_ROW = 3
PREFIX = re.compile(r"^(train|training|eval|evaluate|test|val|valid|validation|central|centralized|server)[_\- ]")
SHORT_NAMES = {"acc": "accuracy"}
FIRST = ("accuracy", "loss")

Points = list[tuple[int, float]]


@dataclass
class Panel:
    """What one panel shows.

    Attributes:
        names: The metric of each source.
        lines: The points of each source.
        band: The lowest and highest value of a node's evaluation in each round.
    """

    names: dict[str, str] = field(default_factory=dict)
    lines: dict[str, Points] = field(default_factory=dict)
    band: list[tuple[int, float, float]] = field(default_factory=list)


def panels(rounds: Sequence[Round]) -> dict[str, Panel]:
    """Return the panels by title: accuracy and loss first, then the others as they appear.

    ``train_loss`` and ``eval_loss`` share a panel. Of two metrics of one source with the same title, the second has a
    panel of its own.
    """
    found: dict[str, Panel] = {}
    for each in rounds:
        for source, metrics in _sources(each):
            for name, value in metrics.items():
                if not _is_number(value):
                    continue
                title = _quantity(name)
                if found.get(title, Panel()).names.get(source, name) != name:
                    title = name if name != title else f"{name} ({source})"
                panel = found.setdefault(title, Panel())
                panel.names[source] = name
                panel.lines.setdefault(source, []).append((each.number, value))
    for panel in found.values():
        panel.band = list(_band(rounds, panel.names.get("evaluate", "")))
    return {title: found[title] for title in sorted(found, key=lambda t: FIRST.index(t) if t in FIRST else len(FIRST))}


def plot_history(rounds: Sequence[Round]) -> bytes | None:
    """Return a PNG that shows the metrics of a run by round; None if there are no metrics.

    Args:
        rounds: The run's rounds.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = list(panels(rounds).items())[:MAX_PANELS]
    if not shown:
        return None

    # Imported only now, at the end of a run, because it takes a second. `pyplot` would choose a backend for the app.
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

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
    columns = min(len(shown), PANELS_PER_ROW)
    rows = math.ceil(len(shown) / columns)
    with rc_context(style):
        figure = Figure(figsize=(max(5 * columns, 6.5), 3.8 * rows + 0.4), layout="constrained")
        for position, (title, panel) in enumerate(shown, start=1):
            _draw(figure.add_subplot(rows, columns, position), title, panel, rounds)
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
        content = io.BytesIO()
        figure.savefig(content, dpi=150, format="png")
    return content.getvalue()


def _draw(axes: Axes, title: str, panel: Panel, rounds: Sequence[Round]) -> None:
    """Draw one panel: a line for each source, and a band from the lowest to the highest node's evaluation."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    if panel.band:
        numbers, lowest, highest = zip(*panel.band, strict=True)
        if len(panel.band) == 1:  # an area needs two points
            numbers, lowest, highest = (numbers[0] - 0.05, numbers[0] + 0.05), lowest * 2, highest * 2
        color = SOURCES["evaluate"][1]
        axes.fill_between(numbers, lowest, highest, color=color, alpha=0.12, linewidth=0, label="evaluate, all nodes")
    for source, points in panel.lines.items():
        label, color, marker = SOURCES[source]
        numbers, values = zip(*points, strict=True)
        axes.plot(numbers, values, color=color, marker=marker, markersize=5, linewidth=1.8, label=label)
    axes.set_title(title.capitalize() if title in FIRST else title, loc="left", fontweight="bold")
    axes.set_xlabel("round")
    axes.set_xlim(min(each.number for each in rounds) - 0.2, max(each.number for each in rounds) + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if title == "accuracy" and all(0 <= value <= 1 for points in panel.lines.values() for _, value in points):
        axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)


def _sources(each: Round) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "train", each.train.metrics
    yield "evaluate", each.evaluate.metrics
    yield "central", each.central or {}


def _band(rounds: Sequence[Round], name: str) -> Iterator[tuple[int, float, float]]:
    for each in rounds:
        values = [node[name] for node in each.evaluate.nodes.values() if _is_number(node.get(name))]
        if values:
            yield each.number, min(values), max(values)


def _quantity(name: str) -> str:
    """Return the title of a metric's panel: its name without the phase."""
    short = PREFIX.sub("", name.lower())
    return SHORT_NAMES.get(short, short)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
