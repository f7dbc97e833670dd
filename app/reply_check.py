"""Which replies can be averaged: one node must neither fail a round nor decide the model unnoticed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

MAX_EXAMPLES_RATIO = 100
"""A node may have this many times as many examples as the median of a round's nodes."""
WEIGHT = "num-examples"


class Problem(NamedTuple):
    """Why a reply is left out.

    Attributes:
        reason: What is wrong with it.
        diverged: Whether its weights or metrics are not finite.
    """

    reason: str
    diverged: bool = False


def check_replies(replies: Sequence[Message], arrays: ArrayRecord | None) -> list[Problem | None]:
    """Return for each reply why it must be left out; None for one that can be averaged.

    FedAvg would fail on replies that differ in their keys, spread a NaN to the whole model, and believe any number of
    examples.

    Args:
        replies: Replies without an error, in an order that does not depend on their arrival: of two halves that differ
            in their metrics, the one with the first reply counts.
        arrays: The global model, whose keys and shapes the replies of a train phase must have; None for an evaluate
            phase.
    """
    problems = [_own_problem(reply, arrays) for reply in replies]
    usable = [number for number, problem in enumerate(problems) if problem is None]
    kinds = {number: _kind(_metrics(replies[number])) for number in usable}
    if usable:
        most_common, _ = Counter(kinds.values()).most_common(1)[0]
        median = statistics.median_low(_metrics(replies[number])[WEIGHT] for number in usable)
        for number in usable:
            examples = _metrics(replies[number])[WEIGHT]
            if kinds[number] != most_common:
                found, expected = ", ".join(sorted(kinds[number])), ", ".join(sorted(most_common))
                problems[number] = Problem(f"left out: its metrics are {found}; those of most nodes are {expected}")
            elif examples > MAX_EXAMPLES_RATIO * median:
                problems[number] = Problem(
                    f"left out: {WEIGHT}={examples} is more than {MAX_EXAMPLES_RATIO} times the median, {median}"
                )
    return problems


def _own_problem(reply: Message, arrays: ArrayRecord | None) -> Problem | None:
    """Return what is wrong with a reply by itself."""
    if len(reply.content.metric_records) != 1:
        return Problem(f"left out: {len(reply.content.metric_records)} metric records instead of 1")
    metrics = _metrics(reply)
    examples = metrics.get(WEIGHT)
    if not isinstance(examples, int) or examples < 1:
        return Problem(f"left out: {WEIGHT}={examples} is not a whole number of at least 1")
    if arrays is not None and (problem := _problem_of_weights(reply, arrays)):
        return problem
    for name, value in metrics.items():
        if not all(map(math.isfinite, value if isinstance(value, list) else [value])):
            return Problem(f"left out: {name} is {value}", diverged=True)
    return None


def _problem_of_weights(reply: Message, arrays: ArrayRecord) -> Problem | None:
    if len(reply.content.array_records) != 1:
        return Problem(f"left out: {len(reply.content.array_records)} array records instead of 1")
    weights = next(iter(reply.content.array_records.values()))
    if _shapes(weights) != _shapes(arrays):
        return Problem("left out: its weights do not have the names and shapes of the global model's")
    if not all(np.isfinite(array.numpy()).all() for array in weights.values()):
        return Problem("left out: its weights are not finite", diverged=True)
    return None


def _metrics(reply: Message) -> dict[str, Any]:
    record: MetricRecord = next(iter(reply.content.metric_records.values()))
    return dict(record)


def _kind(metrics: dict[str, Any]) -> frozenset[str]:
    """Return the names of the metrics, with the length of those that are lists."""
    return frozenset(f"{name}[{len(value)}]" if isinstance(value, list) else name for name, value in metrics.items())


def _shapes(arrays: ArrayRecord) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in arrays.items()}
