"""One call of a strategy's `start`: its rounds are recorded, and one bad node does not end it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import BoundArguments
from logging import WARNING
from typing import Any

from flwr.app import ArrayRecord, Error, Message, MetricRecord
from flwr.common.constant import ErrorCode
from flwr.common.logger import log
from flwr.serverapp.strategy import FedAvg, FedXgbBagging, FedXgbCyclic, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from bouquet.errors import RunError
from bouquet.flower.messages import error_in_place_of
from bouquet.flower.replacements import overridden
from bouquet.flower.reply_check import Averaging, check_replies
from bouquet.flower.run_grid import Exchange, RunGrid
from bouquet.flower.sampling import check_minimums, sampling, strategies
from bouquet.record.entries import Phase, Round, plain_metrics
from bouquet.record.npz import write_npz
from bouquet.record.run_record import RunRecord

LAST_ARRAYS = "last_arrays.npz"
DIVERGED_HINT = "lower the learning rate"
WITH_OTHER_SHAPES = (FedXgbBagging, FedXgbCyclic)
"""Strategies that average metrics, but no arrays: trees differ in number."""


class _RecordedEvaluation(partial[Any]):
    """An `evaluate_fn` whose metrics are recorded; its first argument is the app's function."""


class StrategyStart:
    """One call of a strategy's `start`.

    Args:
        strategy: The strategy.
        record: The run's record.
        grid: The run's grid.

    Attributes:
        strategy: The strategy.
        started: When the fleet was complete and the method was called, by the monotonic clock; None before that.
    """

    def __init__(self, strategy: Strategy, record: RunRecord, grid: RunGrid) -> None:
        self.strategy = strategy
        self.started: float | None = None
        self._record = record
        self._grid = grid
        self._rounds: list[Round] = []
        self._phase: Phase | None = None  # between the sampling of nodes and the aggregation of their replies
        self._phase_started = 0.0
        self._sent: ArrayRecord | None = None
        self._awaits_exchange = False  # the messages of the phase are not sent yet
        self._exchange: Exchange | None = None
        self._aggregated: ArrayRecord | None = None
        self._diverged = False

    def run(self, start: Callable[..., Any], call: BoundArguments) -> Any:
        """Call a strategy's `start`.

        Args:
            start: The method.
            call: Its arguments.

        Returns:
            What the method returns.

        Raises:
            FleetError: The strategy asks for more nodes than the run has.
            RunError: No node trained in a round, or the run has diverged.
        """
        strategy, name = self.strategy, type(self.strategy).__name__
        self._record.strategy = name
        self.record_central_evaluation(call)
        list(self._grid.get_node_ids())  # waits for the whole fleet
        check_minimums(strategy, self._grid.members.at_start)
        self.started = time.monotonic()
        try:
            with overridden(
                strategy,
                configure_train=partial(self._configure, "train", strategy.configure_train),
                configure_evaluate=partial(self._configure, "evaluate", strategy.configure_evaluate),
                aggregate_train=partial(self._aggregate_train, strategy.aggregate_train),
                aggregate_evaluate=partial(self._aggregate_evaluate, strategy.aggregate_evaluate),
            ):
                return start(*call.args, **call.kwargs)
        except Exception:
            self._keep_arrays()
            raise
        finally:
            self._grid.members.server_round = None
            self._grid.logs_error_replies = True

    def record_central_evaluation(self, call: BoundArguments) -> None:
        """Put a recording function in place of the `evaluate_fn` of a call of `start`."""
        evaluate_fn = call.arguments.get("evaluate_fn")
        if isinstance(evaluate_fn, _RecordedEvaluation):  # of the `start` that has called this one
            evaluate_fn = evaluate_fn.args[0]
        if evaluate_fn is not None:
            call.arguments["evaluate_fn"] = _RecordedEvaluation(self._evaluate_centrally, evaluate_fn)

    def receive(self, exchange: Exchange) -> bool:
        """Take an exchange as that of the phase in progress; return False if there is none."""
        if not self._awaits_exchange:
            return False
        self._awaits_exchange, self._exchange = False, exchange
        return True

    def without_bad_replies(
        self, strategy: Strategy, replies: list[Message], *, is_train: bool, averages: bool = True
    ) -> list[Message]:
        """Return the replies with an error in place of each one that cannot be averaged.

        Args:
            strategy: The strategy that averages them: a FedAvg.
            replies: What the nodes replied.
            is_train: Whether they are from a train phase.
            averages: Whether Flower averages the replies. An app may combine arrays of different shapes by itself.

        Raises:
            RunError: The run has diverged: no reply is usable, and at least one is not finite.
        """
        averaging = _averaging(strategy, self._sent, is_train=is_train)._replace(same_shapes=averages)
        contents = [number for number, reply in enumerate(replies) if not reply.has_error()]
        problems = check_replies([replies[number] for number in contents], averaging)
        for number, problem in zip(contents, problems, strict=True):
            if problem is None:
                continue
            node_id = replies[number].metadata.src_node_id
            reason = self._grid.members.with_partition(node_id, problem.reason)
            self._diverged |= problem.diverged
            replies[number] = error_in_place_of(replies[number], Error(ErrorCode.UNKNOWN, reason))
            if self._phase is not None:
                self._phase.nodes.pop(str(node_id), None)
                self._phase.errors[str(node_id)] = reason
        if self._phase is not None and contents and None not in problems and not self._phase.nodes:
            self._raise_without_replies(self._phase, is_train=is_train)
        return replies

    def _configure(self, kind: str, configure: Callable[..., Iterable[Message]], *values: Any, **named: Any) -> Any:
        """Return the messages for the sampled nodes, and start the phase's record."""
        server_round, arrays, config, grid = _in_order(("server_round", "arrays", "config", "grid"), values, named)
        self._phase_started = time.monotonic()
        self._sent, self._exchange, self._diverged = arrays, None, False
        entry = self._round(server_round)
        self._grid.members.server_round = server_round
        self._grid.logs_error_replies = not _logs_errors(strategies(self.strategy)[-1], f"aggregate_{kind}")
        with sampling(self.strategy, grid) as snapshot:
            messages = list(configure(server_round, arrays, config, snapshot))
        self._phase = entry.train if kind == "train" else entry.evaluate
        self._awaits_exchange = True
        return messages

    def _aggregate_train(self, aggregate: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """Return the strategy's arrays and metrics.

        Raises:
            RunError: No node trained, or the run has diverged.
        """
        entry, phase, replies = self._collect("train", values, named)
        metrics: MetricRecord | None = None
        try:
            if phase.errors and not phase.nodes:
                self._raise_without_replies(phase, is_train=True)
            if len(strategies(self.strategy)) > 1:  # a wrapper clips the arrays of replies before they are averaged
                inner = strategies(self.strategy)[-1]
                if isinstance(inner, FedAvg):
                    replies = self.without_bad_replies(inner, replies, is_train=True)
            arrays, metrics = aggregate(entry.number, replies)
        finally:
            self._finish(entry, phase, metrics)
        if arrays is not None:
            self._aggregated = arrays
        elif phase.nodes:
            log(WARNING, "Round %d: the strategy did not aggregate; the arrays stay as they were", entry.number)
        return arrays, metrics

    def _aggregate_evaluate(self, aggregate: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """Return the strategy's metrics, and finish the round's record.

        Raises:
            RunError: The run has diverged.
        """
        entry, phase, replies = self._collect("evaluate", values, named)
        metrics: MetricRecord | None = None
        try:
            metrics = aggregate(entry.number, replies)
        finally:
            self._finish(entry, phase, metrics)
        return metrics

    def _evaluate_centrally(self, evaluate_fn: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """Return the metrics of the app's central evaluation, and record them."""
        metrics = evaluate_fn(*values, **named)
        if metrics is not None:
            server_round, _ = _in_order(("server_round", "arrays"), values, named)
            self._round(server_round).central = plain_metrics(metrics)
            self._record.update()
        return metrics

    def _round(self, number: int) -> Round:
        """Return the record of a round, which starts with its first phase."""
        if not self._rounds or self._rounds[-1].number != number:
            self._rounds.append(Round(number))
            self._record.rounds.append(self._rounds[-1])
        return self._rounds[-1]

    def _collect(self, kind: str, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Round, Phase, list[Message]]:
        """Record the replies of a phase; return its round, the phase, and the replies to aggregate."""
        server_round, replies = _in_order(("server_round", "replies"), values, named)
        replies = list(replies)
        entry = self._round(server_round)
        self._phase = phase = entry.train if kind == "train" else entry.evaluate
        if self._exchange is not None:
            fill(phase, replies, self._exchange.failures, self._exchange.partition_ids)
        else:  # an app's own `start` has other ways to exchange messages
            failures = {reply.metadata.src_node_id: reply.error.reason for reply in replies if reply.has_error()}
            fill(phase, replies, failures, self._grid.members.partition_ids)
        self._awaits_exchange, self._exchange = False, None  # an exchange holds replies as large as the model
        return entry, phase, replies

    def _keep_arrays(self) -> None:
        """Write the arrays of the last round that was aggregated, for a run that fails."""
        if self._aggregated:
            path = self._record.folder.path / LAST_ARRAYS
            try:
                write_npz(path, {name: array.numpy() for name, array in self._aggregated.items()})
            except (OSError, AttributeError, TypeError, ValueError) as error:
                log(WARNING, "%s: cannot be written (%s)", path, error)

    def _finish(self, entry: Round, phase: Phase, metrics: MetricRecord | None) -> None:
        self._phase, self._sent = None, None
        phase.metrics = plain_metrics(metrics)
        phase.seconds = time.monotonic() - self._phase_started
        entry.stop_clock()
        self._record.update()

    def _raise_without_replies(self, phase: Phase, *, is_train: bool) -> None:
        number = self._rounds[-1].number
        if self._diverged:
            raise RunError(f"round {number}: the run has diverged: {phase.joined_errors()}", DIVERGED_HINT)
        if is_train:
            # To continue would pass the old model off as a new one.
            raise RunError(f"round {number}: no node trained", phase.joined_errors())


def fill(
    phase: Phase, replies: Iterable[Message], failures: Mapping[int, str], partition_ids: Mapping[int, int]
) -> None:
    """Record the replies and failures of an exchange."""
    for reply in replies:
        if not reply.has_error():
            node_id = reply.metadata.src_node_id
            records = reply.content.metric_records.values()
            metrics = {name: value for record in records for name, value in record.items()}
            phase.add_node(node_id, partition_ids.get(node_id), metrics)
    phase.errors |= {str(node_id): reason for node_id, reason in failures.items()}


def _averaging(strategy: Strategy, sent: ArrayRecord | None, *, is_train: bool) -> Averaging:
    aggregation = getattr(strategy, "train_metrics_aggr_fn" if is_train else "evaluate_metrics_aggr_fn", None)
    return Averaging(
        weight=getattr(strategy, "weighted_by_key", Averaging().weight),
        averages_arrays=is_train and not isinstance(strategy, WITH_OTHER_SHAPES),
        averages_lists=aggregation is aggregate_metricrecords,
        sent=sent if is_train else None,
    )


def _logs_errors(strategy: Strategy, method: str) -> bool:
    """Return whether a strategy logs error replies itself, as Flower's own do."""
    return isinstance(strategy, FedAvg) and getattr(type(strategy), method).__module__.startswith("flwr.")


def _in_order(names: tuple[str, ...], values: tuple[Any, ...], named: Mapping[str, Any]) -> list[Any]:
    """Return the arguments of a call in the order of Flower's names for them."""
    return [*values, *(named[name] for name in names[len(values) :])]
