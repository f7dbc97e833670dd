"""What a run has done so far: rounds of a strategy, and exchanges of an app that has its own loop."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Values = dict[str, Any]
"""Metrics by name: an int, a float, or a list of these."""

MAX_FAILURES = 5
"""Failures of nodes that one text names."""
_MAX_REASON = 200  # characters
_PARTITION = re.compile(r"partition-id \d+")
_NODE_PREFIX = re.compile(r"^(SuperNode \d+ \(partition-id \d+\)|partition-id \d+): ")


def failure_line(node_id: str, reason: str) -> str:
    """Return in one line which node failed and why.

    Args:
        node_id: Its node id.
        reason: Its error, which may name the partition and end with a traceback. The last line counts.
    """
    partition = _PARTITION.search(reason)
    line = _NODE_PREFIX.sub("", (reason.strip().splitlines() or ["no reason"])[-1].strip())
    if len(line) > _MAX_REASON:
        line = f"{line[: _MAX_REASON - 3]}..."
    return f"node {node_id}{f' ({partition[0]})' if partition else ''}: {line}"


def shortened(lines: list[str], where: str = "") -> list[str]:
    """Return the first `MAX_FAILURES` lines, and one that says how many more there are.

    Args:
        lines: A line for each failure.
        where: Where to find the others, for example ` in metrics.json`.
    """
    more = [f"and {len(lines) - MAX_FAILURES} more{where}"] if len(lines) > MAX_FAILURES else []
    return lines[:MAX_FAILURES] + more


def plain_metrics(metrics: object) -> Values:
    """Return metrics with numbers of Python's own; empty if they are no mapping.

    Args:
        metrics: What an app calls its metrics. Values may be of NumPy or PyTorch. What is no number becomes text.
    """
    return {str(name): _plain(value) for name, value in metrics.items()} if isinstance(metrics, Mapping) else {}


def _plain(value: Any) -> Any:
    if isinstance(value, int | float | str | None):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return plain_metrics(value)
    to_list = getattr(value, "tolist", None)  # gives a number for a single one
    return to_list() if callable(to_list) else str(value)


@dataclass
class Phase:
    """The train or evaluate half of a round.

    Attributes:
        metrics: The aggregated metrics.
        nodes: The partition-id and metrics of each node that replied, by node id.
        errors: The reason for each node that failed or did not reply, by node id.
        seconds: Time from the sampling of nodes to the aggregated result, in seconds.
    """

    metrics: Values = field(default_factory=dict)
    nodes: dict[str, Values] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def add_node(self, node_id: int, partition_id: int | None, metrics: Mapping[str, Any]) -> None:
        """Record the reply of a node."""
        self.nodes[str(node_id)] = {"partition-id": partition_id, **metrics}

    def joined_errors(self) -> str:
        """Return the failures in one line."""
        if not self.errors:
            return "no node got a message"
        return "; ".join(shortened([failure_line(node_id, reason) for node_id, reason in self.errors.items()]))

    def as_json(self) -> Values:
        """Return the phase's entry in metrics.json."""
        return {
            "metrics": self.metrics,
            "replies": len(self.nodes),
            "failures": len(self.errors),
            "seconds": round(self.seconds, 3),
            "nodes": self.nodes,
            "errors": self.errors,
        }


@dataclass
class Round:
    """One round of a strategy.

    Attributes:
        number: Number of the round, from 1; 0 for the evaluation of the initial arrays.
        train: The train phase.
        evaluate: The evaluate phase.
        central: The metrics that the app's `evaluate_fn` returned; None if it returned none.
        started: When the round started, by the monotonic clock, in seconds.
        seconds: Time from the start to the end of the round's last phase, in seconds.
    """

    number: int
    train: Phase = field(default_factory=Phase)
    evaluate: Phase = field(default_factory=Phase)
    central: Values | None = None
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def stop_clock(self) -> None:
        """Set the round's seconds to the time since its start."""
        self.seconds = time.monotonic() - self.started

    def as_json(self) -> Values:
        """Return the round's entry in metrics.json."""
        return {
            "round": self.number,
            "train": self.train.as_json(),
            "evaluate": self.evaluate.as_json(),
            "central": self.central,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class ExchangeEntry(Phase):
    """One call of `Grid.send_and_receive` by an app that has its own loop.

    Attributes:
        message_type: Type of the messages; different types are joined by commas.
    """

    message_type: str = ""

    def average(self) -> None:
        """Set the metrics to the plain means of the numbers that all nodes gave."""
        nodes = list(self.nodes.values())
        names = [name for name in (nodes[0] if nodes else {}) if name != "partition-id"]
        self.metrics = {
            name: sum(node[name] for node in nodes) / len(nodes)
            for name in names
            if all(isinstance(node.get(name), int | float) for node in nodes)
        }

    def as_json(self) -> Values:
        """Return the exchange's entry in metrics.json."""
        return {"message-type": self.message_type, **super().as_json()}
