"""FedAvg that keeps what happened: each round's replies, failures, per-node values and seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from app.errors import RunError
from app.roll import PlacesOnly, Roll

NodeValues = dict[str, Any]


@dataclass
class Phase:
    """The train or evaluate half of a round.

    Attributes:
        metrics: The aggregated metrics.
        nodes: For each node that replied, by node id: its partition-id and its metrics.
        errors: For each node that did not, by node id: why.
        seconds: From the sampling of nodes to the aggregated result.
    """

    metrics: NodeValues = field(default_factory=dict)
    nodes: dict[str, NodeValues] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the phase as it stands in metrics.json."""
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
    """One round; `central` is the global model's scores on the dataset's test split, where asked for."""

    number: int
    train: Phase = field(default_factory=Phase)
    evaluate: Phase = field(default_factory=Phase)
    central: NodeValues | None = None
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the round as it stands in metrics.json."""
        return {
            "round": self.number,
            "train": self.train.as_json(),
            "evaluate": self.evaluate.as_json(),
            "central": self.central,
            "seconds": round(self.seconds, 3),
        }


class RecordedFedAvg(FedAvg):
    """FedAvg with a record of every round.

    Flower's own result has the aggregates only, and counts a node that never answered as nothing at all. Here
    every node that was asked is either among `Phase.nodes` or among `Phase.errors`. Nodes are sampled from those that
    the run counts on (`Roll`). A round in which no node trained ends the run with `RunError`: to go on would be to
    call the old model a new one.

    Attributes:
        rounds: One record per round that was begun.
        arrays: The newest global model; None until a round has made one.
    """

    def __init__(self, fraction_train: float, round_deadline: float, roll: Roll) -> None:
        # A fleet that shrank goes on with who is left, and a fleet of one is a fleet.
        super().__init__(fraction_train=fraction_train, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.rounds: list[Round] = []
        self.arrays: ArrayRecord | None = None
        self._round_deadline = round_deadline
        self._roll = roll
        self._asked: list[Metadata] = []
        self._asked_at = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample nodes and begin the round's record."""
        self.rounds.append(Round(server_round))
        return self._ask(super().configure_train, server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the weights and metrics by number of examples.

        In the order of partition-ids: floating-point sums depend on their order, and replies come in any.

        Raises:
            RunError: No node trained.
        """
        phase, replies = self.rounds[-1].train, list(replies)
        self._record(phase, replies)
        replies.sort(key=lambda reply: self._roll.partition_ids.get(reply.metadata.src_node_id, -1))
        arrays, metrics = super().aggregate_train(server_round, replies)
        self._finish(phase, metrics)
        if arrays is None:
            raise RunError(f"round {server_round}: no node trained; {self._blame(phase)}")
        self.arrays = arrays
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample nodes."""
        return self._ask(super().configure_evaluate, server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Average the metrics by number of examples, and end the round's record."""
        phase, replies = self.rounds[-1].evaluate, list(replies)
        self._record(phase, replies)
        metrics = super().aggregate_evaluate(server_round, replies)
        self._finish(phase, metrics)
        return metrics

    def _ask(
        self, configure: Any, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        self._asked_at = time.monotonic()
        present = self._roll.call(grid, server_round, self._round_deadline)
        messages: list[Message] = list(configure(server_round, arrays, config, PlacesOnly(present)))
        self._asked = [message.metadata for message in messages]
        return messages

    def _record(self, phase: Phase, replies: list[Message]) -> None:
        asked = {metadata.message_id: metadata.dst_node_id for metadata in self._asked}
        for reply in replies:
            # By the message: where a node has gone, it is the SuperLink that replies.
            node_id = asked.get(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)
            if reply.has_error():
                reason = self._blamed(node_id, reply.error.reason or f"error {reply.error.code}")
                phase.errors[str(node_id)] = reason
                if node_id != reply.metadata.src_node_id:  # of the others, Flower's own line names the node
                    log(WARNING, "\t> Node %d: %s", node_id, reason)
                continue
            named = reply.content.config_records.get("node", ConfigRecord())
            if "partition-id" in named:
                self._roll.partition_ids[node_id] = int(named["partition-id"])  # type: ignore[arg-type]
            values = {key: value for record in reply.content.metric_records.values() for key, value in record.items()}
            phase.nodes[str(node_id)] = {"partition-id": self._roll.partition_ids.get(node_id), **values}
        for node_id in asked.values():
            if str(node_id) not in phase.nodes and str(node_id) not in phase.errors:
                reason = f"no reply within round-deadline={self._round_deadline:g} s"
                phase.errors[str(node_id)] = self._blamed(node_id, reason)
                log(WARNING, "\t> Node %d: %s", node_id, phase.errors[str(node_id)])

    def _blamed(self, node_id: int, reason: str) -> str:
        """Return the reason with the node's partition-id, which the ClientApp's own reasons have already."""
        if "partition-id " in reason:
            return reason
        return f"partition-id {self._roll.partition_ids.get(node_id, 'unknown')}: {reason}"

    def _finish(self, phase: Phase, metrics: MetricRecord | None) -> None:
        now = time.monotonic()
        phase.metrics = dict(metrics or {})
        phase.seconds = now - self._asked_at
        self.rounds[-1].seconds = now - self.rounds[-1].started

    @staticmethod
    def _blame(phase: Phase) -> str:
        if not phase.errors:
            return "no node was asked"
        return "; ".join(f"node {node_id}: {reason}" for node_id, reason in phase.errors.items())
