"""The picture of the label counts: how many images of each class each node has."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def plot_label_counts(counts: Mapping[int, Sequence[int]], file: str) -> None:
    """Write a PNG with a bar for each node, from its number of images of each class, by partition-id."""
    nodes = sorted(counts)
    figure = Figure(figsize=(max(7.0, 2 + 0.25 * len(nodes)), 4.2), layout="constrained")
    axes = figure.subplots()
    below = [0] * len(nodes)
    for label, of_nodes in enumerate(zip(*(counts[node] for node in nodes), strict=True)):
        axes.bar(nodes, of_nodes, bottom=below, color=f"C{label}", label=f"{label}")
        below = [sum(pair) for pair in zip(below, of_nodes, strict=True)]
    axes.set_title("Images of each class by node", loc="left", fontweight="bold")
    axes.set(xlabel="node (partition-id)", ylabel="images")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(title="class", loc="outside right center", frameon=False, reverse=True)
    figure.savefig(file, dpi=150)
