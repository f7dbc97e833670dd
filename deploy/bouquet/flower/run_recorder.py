"""Records what a ServerApp does: `Strategy.start`, of Flower's strategies and of its own, and other exchanges."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterable
from functools import wraps
from inspect import signature
from typing import Any

from flwr.app import Message
from flwr.serverapp.strategy import FedAvg, Strategy

from bouquet.flower.replacements import replace
from bouquet.flower.run_grid import NOT_GIVEN, Exchange, RunGrid
from bouquet.flower.strategy_start import StrategyStart, fill
from bouquet.record.entries import ExchangeEntry
from bouquet.record.run_record import RunRecord

STRATEGY = "flwr.serverapp.strategy.strategy"
FLOWERS_TIMEOUT = signature(Strategy.start).parameters["timeout"].default
"""An app's own `start` that has this default has copied it from Flower's."""


class RunRecorder:
    """Records what a ServerApp does with its grid: rounds of strategies, and exchanges of its own.

    Args:
        record: The run's record.
        grid: The run's grid.
    """

    def __init__(self, record: RunRecord, grid: RunGrid) -> None:
        self._record = record
        self._grid = grid
        self._start: StrategyStart | None = None

    def install(self) -> None:
        """Record from now on. A process records one run."""
        self._grid.on_exchange = self._on_exchange
        replace(STRATEGY, "Strategy.start", self.recorded(Strategy.start))

        def record_own_start(strategy_class: type[Strategy], /, **options: Any) -> None:
            super(Strategy, strategy_class).__init_subclass__(**options)
            if "start" in vars(strategy_class):
                strategy_class.start = self.recorded(strategy_class.start)  # type: ignore[method-assign]

        replace(STRATEGY, "Strategy.__init_subclass__", classmethod(record_own_start))
        replace("flwr.serverapp.strategy.fedavg", "FedAvg._check_and_log_replies", self._checked())

    def recorded(self, start: Callable[..., Any]) -> Callable[..., Any]:
        """Return a `start` that is recorded.

        Args:
            start: The method of a strategy's class.
        """
        is_flowers = start.__module__ == STRATEGY

        @wraps(start)
        def recorded_start(strategy: Strategy, /, *arguments: Any, **options: Any) -> Any:
            call = signature(start).bind(strategy, *arguments, **options)
            if "timeout" not in call.arguments and "timeout" in call.signature.parameters:
                # An app's own `start` or grid may calculate with the timeout. Flower's `start` passes it to the grid.
                if is_flowers and call.arguments.get("grid") is self._grid:
                    call.arguments["timeout"] = NOT_GIVEN
                elif call.signature.parameters["timeout"].default == FLOWERS_TIMEOUT:
                    call.arguments["timeout"] = self._grid.settings.round_deadline or math.inf
            outer = self._start
            if outer is not None and outer.strategy is strategy:  # an app's own `start` calls Flower's
                outer.record_central_evaluation(call)
                return start(*call.args, **call.kwargs)
            self._start = this = StrategyStart(strategy, self._record, self._grid)
            try:
                return this.run(start, call)
            finally:
                self._start = outer
                if outer is None and this.started is not None:
                    self._record.seconds += time.monotonic() - this.started

        return recorded_start

    def _checked(self) -> Callable[..., tuple[list[Message], list[Message]]]:
        check = FedAvg._check_and_log_replies

        @wraps(check)
        def check_and_log(
            strategy: FedAvg, replies: Iterable[Message], is_train: bool, validate: bool = True
        ) -> tuple[list[Message], list[Message]]:
            if validate and self._start is not None:
                caller = inspect.currentframe().f_back.f_globals["__name__"]  # type: ignore[union-attr]
                replies = self._start.without_bad_replies(
                    strategy, list(replies), is_train=is_train, averages=caller.startswith("flwr.")
                )
            return check(strategy, replies, is_train, validate)

        return check_and_log

    def _on_exchange(self, exchange: Exchange) -> None:
        self.copy_members()
        if self._start is not None and self._start.receive(exchange):
            return
        types = dict.fromkeys(metadata.message_type for metadata in exchange.messages)
        entry = ExchangeEntry(message_type=", ".join(types), seconds=exchange.seconds)
        fill(entry, exchange.replies, exchange.failures, exchange.partition_ids)
        entry.average()
        self._record.exchanges.append(entry)
        self._record.update()

    def copy_members(self) -> None:
        """Copy what the grid knows about the run's nodes into the record."""
        members = self._grid.members
        self._record.num_supernodes = members.at_start
        self._record.num_partitions = members.num_partitions
        self._record.fleet_changes = members.changes
