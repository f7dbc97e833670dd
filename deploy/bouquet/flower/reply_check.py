"""Which replies a strategy can average: one node must neither fail a round nor decide the model unnoticed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.common.constant import SType

MAX_WEIGHT_RATIO = 10_000
"""A node's weight, such as its number of examples, may be this many times the median of a round's nodes."""
LOSS = "loss"
"""A metric with this in its name must be finite. Others need not be: an AUC is not defined for a single class."""

Shapes = dict[str, tuple[int, ...]]


class Problem(NamedTuple):
    """Why a reply is left out.

    Attributes:
        reason: What is wrong with it.
        diverged: Whether its arrays or its loss are not finite.
    """

    reason: str
    diverged: bool = False


class Averaging(NamedTuple):
    """How a strategy averages replies.

    Attributes:
        weight: Name of the metric that is the weight of a reply.
        averages_arrays: Whether it averages the arrays of replies.
        same_shapes: Whether the arrays must have the same shapes.
        averages_lists: Whether it averages metrics that are lists, which must then have the same length.
        sent: The arrays that were sent to the nodes; None for an evaluate phase.
    """

    weight: str = "num-examples"
    averages_arrays: bool = True
    same_shapes: bool = True
    averages_lists: bool = True
    sent: ArrayRecord | None = None


def check_replies(replies: Sequence[Message], averaging: Averaging) -> list[Problem | None]:
    """Return for each reply why it must be left out; None for one that can be averaged.

    FedAvg would fail on replies that differ in their keys, spread a NaN to the whole model, and believe any number of
    examples.

    Args:
        replies: Replies without an error, in an order that does not depend on their arrival: of two halves that differ
            in their metrics, the one with the first reply counts.
        averaging: How the strategy averages them.
    """
    problems = [_own_problem(reply, averaging) for reply in replies]
    for check in (_other_arrays, _other_metrics, _too_heavy):
        usable = [number for number, problem in enumerate(problems) if problem is None]
        for number, problem in zip(usable, check([replies[number] for number in usable], averaging), strict=True):
            problems[number] = problem
    return problems


def _own_problem(reply: Message, averaging: Averaging) -> Problem | None:
    """Return what is wrong with a reply by itself."""
    if len(reply.content.metric_records) != 1:
        return Problem(f"left out: {len(reply.content.metric_records)} metric records instead of 1")
    metrics = _metrics(reply)
    weight = metrics.get(averaging.weight)
    if not isinstance(weight, int | float) or not math.isfinite(weight) or weight <= 0:
        return Problem(f"left out: {averaging.weight}={weight} is not a number above 0")
    if averaging.averages_arrays:
        if len(reply.content.array_records) != 1:
            return Problem(f"left out: {len(reply.content.array_records)} array records instead of 1")
        if not _is_finite(_arrays(reply)):
            return Problem("left out: its weights are not finite", diverged=True)
    for name, value in metrics.items():
        if LOSS in name.lower() and not all(map(math.isfinite, value if isinstance(value, list) else [value])):
            return Problem(f"left out: {name} is {value}", diverged=True)
    return None


def _other_arrays(replies: Sequence[Message], averaging: Averaging) -> list[Problem | None]:
    """Find replies whose arrays have other names or shapes than those that were sent, or than those of most nodes.

    An app may reply with other arrays than it was sent, such as a part of the model: then all its nodes do.
    """
    if not replies or not averaging.averages_arrays:
        return [None] * len(replies)
    describe = _shapes if averaging.same_shapes else set[str]
    shapes = [describe(_arrays(reply)) for reply in replies]
    sent = describe(averaging.sent) if averaging.sent is not None else None
    if sent in shapes:
        expected, whose = sent, "the global model's"
    else:
        expected, whose = max(shapes, key=shapes.count), "those of most nodes"
    problem = Problem(f"left out: its weights do not have the names and shapes of {whose}")
    return [None if each == expected else problem for each in shapes]


def _other_metrics(replies: Sequence[Message], averaging: Averaging) -> list[Problem | None]:
    """Find replies whose metrics are not those of most nodes."""
    if not replies:
        return []
    kinds = [_kind(_metrics(reply), with_lengths=averaging.averages_lists) for reply in replies]
    most_common, _ = Counter(kinds).most_common(1)[0]
    expected = ", ".join(sorted(most_common))
    return [
        None
        if kind == most_common
        else Problem(f"left out: its metrics are {', '.join(sorted(kind))}; those of most nodes are {expected}")
        for kind in kinds
    ]


def _too_heavy(replies: Sequence[Message], averaging: Averaging) -> list[Problem | None]:
    """Find replies whose weight would decide the average alone."""
    if not replies:
        return []
    weights = [_metrics(reply)[averaging.weight] for reply in replies]
    median = statistics.median_low(weights)
    limit = f"more than {MAX_WEIGHT_RATIO} times the median, {median}"
    return [
        Problem(f"left out: {averaging.weight}={weight} is {limit}") if weight > MAX_WEIGHT_RATIO * median else None
        for weight in weights
    ]


def _metrics(reply: Message) -> dict[str, Any]:
    record: MetricRecord = next(iter(reply.content.metric_records.values()))
    return dict(record)


def _arrays(reply: Message) -> ArrayRecord:
    return next(iter(reply.content.array_records.values()))


def _kind(metrics: dict[str, Any], *, with_lengths: bool) -> frozenset[str]:
    """Return the names of the metrics, with the length of those that are lists if it matters."""
    return frozenset(
        f"{name}[{len(value)}]" if with_lengths and isinstance(value, list) else name for name, value in metrics.items()
    )


def _shapes(arrays: ArrayRecord) -> Shapes:
    return {name: tuple(array.shape) for name, array in arrays.items()}


def _is_finite(arrays: ArrayRecord) -> bool:
    return all(
        bool(np.isfinite(array.numpy()).all())
        for array in arrays.values()
        if array.stype == SType.NUMPY and array.dtype.startswith(("float", "complex"))
    )
