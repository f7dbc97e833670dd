"""FedAvg that records each round: replies, failures, metrics of every node, and seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from app.exceptions import RunError
from app.participants import FixedNodesGrid, Participants
from app.reply_check import check_replies
from app.run_log import log

NodeValues = dict[str, Any]


@dataclass
class Phase:
    """The train or evaluate half of a round.

    Attributes:
        metrics: The aggregated metrics.
        nodes: The partition-id and metrics of each node that replied, by node id.
        errors: The reason for each node that failed or did not reply, by node id.
        seconds: Time from the sampling of nodes to the aggregated result, in seconds.
    """

    metrics: NodeValues = field(default_factory=dict)
    nodes: dict[str, NodeValues] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
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
    """One round.

    Attributes:
        number: Number of the round, from 1.
        train: The train phase.
        evaluate: The evaluate phase.
        central: The global model's scores on the dataset's test split; None if it was not evaluated centrally.
        started: When the round started, by the monotonic clock, in seconds.
        seconds: Time from the start to the end of the round's last phase, in seconds.
    """

    number: int
    train: Phase = field(default_factory=Phase)
    evaluate: Phase = field(default_factory=Phase)
    central: NodeValues | None = None
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the round's entry in metrics.json."""
        return {
            "round": self.number,
            "train": self.train.as_json(),
            "evaluate": self.evaluate.as_json(),
            "central": self.central,
            "seconds": round(self.seconds, 3),
        }


class RecordedFedAvg(FedAvg):
    """FedAvg with a record of every round.

    Flower's own result has only aggregates and does not mention a node that never replied. Here every node that got a
    message is either in `Phase.nodes` or in `Phase.errors`. Nodes are sampled from the run's `Participants`. A reply
    that cannot be averaged (`app.reply_check`) counts as a failure of its node. A round in which no node trained ends
    the run with `RunError`, because continuing would pass the old model off as a new one.

    Args:
        fraction_train: Fraction of the participants that train in a round.
        round_deadline: How long a phase waits for replies, and how long it waits for a participant to be online first,
            in seconds.
        participants: The SuperNodes that take part in the run.
        divergence_hint: What to do about a run that diverges.

    Attributes:
        rounds: One record for each round that has started.
        arrays: The newest global model; None until the first round has been aggregated.
    """

    def __init__(
        self, fraction_train: float, round_deadline: float, participants: Participants, divergence_hint: str
    ) -> None:
        # One node is enough, so that a fleet that shrank can continue with the nodes that remain.
        super().__init__(fraction_train=fraction_train, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.rounds: list[Round] = []
        self.arrays: ArrayRecord | None = None
        self._round_deadline = round_deadline
        self._participants = participants
        self._divergence_hint = divergence_hint
        self._global_arrays: ArrayRecord | None = None  # those that the phase's messages carry
        self._sent: list[Metadata] = []
        self._phase_started = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the train messages for the sampled nodes, and start the round's record."""
        self.rounds.append(Round(server_round))
        return self._configure(super().configure_train, server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the weights and metrics averaged by number of examples.

        Raises:
            RunError: No node trained, or the run has diverged.
        """
        phase = self.rounds[-1].train
        usable = self._record(phase, list(replies), self._global_arrays)
        arrays, metrics = super().aggregate_train(server_round, usable)
        self._finish_phase(phase, metrics)
        if arrays is None:
            raise RunError(f"round {server_round}: no node trained; {self._join_errors(phase)}")
        self.arrays = arrays
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the evaluate messages for all participants that are online."""
        return self._configure(super().configure_evaluate, server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the metrics averaged by number of examples, and finish the round's record.

        Raises:
            RunError: The run has diverged.
        """
        phase = self.rounds[-1].evaluate
        usable = self._record(phase, list(replies), None)
        metrics = super().aggregate_evaluate(server_round, usable)
        self._finish_phase(phase, metrics)
        return metrics

    def _configure(
        self, configure: Any, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        self._phase_started = time.monotonic()
        self._global_arrays = arrays
        online = self._participants.await_online(grid, server_round, self._round_deadline)
        messages: list[Message] = list(configure(server_round, arrays, config, FixedNodesGrid(online)))
        self._sent = [message.metadata for message in messages]
        return messages

    def _record(self, phase: Phase, replies: list[Message], expected: ArrayRecord | None) -> list[Message]:
        """Record each node's reply or failure, and return the replies to aggregate.

        They are sorted by partition-id: replies arrive in any order, and a floating-point sum depends on it.

        Args:
            phase: Gets the record.
            replies: What the nodes replied.
            expected: The global model, whose shapes the replies must have; None for an evaluate phase.

        Raises:
            RunError: The run has diverged: no reply is usable, and at least one is not finite.
        """
        recipients = {metadata.message_id: metadata.dst_node_id for metadata in self._sent}

        def sender(reply: Message) -> int:
            # From the message's recipient: for a node that has left, the SuperLink replies.
            return recipients.get(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)

        errors = [reply for reply in replies if reply.has_error()]
        for reply in errors:
            # Flower's own log line names the node, unless the SuperLink has replied for it.
            is_logged = sender(reply) == reply.metadata.src_node_id
            self._fail(phase, sender(reply), reply.error.reason or f"error {reply.error.code}", is_logged=is_logged)
        contents = [reply for reply in replies if not reply.has_error()]
        for reply in contents:
            record = reply.content.config_records.get("node", ConfigRecord())
            if "partition-id" in record:
                self._participants.partition_ids[sender(reply)] = int(record["partition-id"])  # type: ignore[arg-type]
        contents.sort(key=lambda reply: self._participants.partition_ids.get(sender(reply), -1))
        usable, diverged = [], False
        for reply, problem in zip(contents, check_replies(contents, expected), strict=True):
            node_id = sender(reply)
            if problem is not None:
                self._fail(phase, node_id, problem.reason)
                diverged |= problem.diverged
                continue
            usable.append(reply)
            values = {key: value for metrics in reply.content.metric_records.values() for key, value in metrics.items()}
            phase.nodes[str(node_id)] = {"partition-id": self._participants.partition_ids.get(node_id), **values}
        for node_id in recipients.values():
            if str(node_id) not in phase.nodes and str(node_id) not in phase.errors:
                self._fail(phase, node_id, f"no reply within round-deadline={self._round_deadline:g} s")
        if diverged and not usable:
            self._finish_phase(phase, None)
            server_round = self.rounds[-1].number
            raise RunError(
                f"round {server_round}: the run has diverged: {self._join_errors(phase)}; {self._divergence_hint}"
            )
        return usable + errors

    def _fail(self, phase: Phase, node_id: int, reason: str, *, is_logged: bool = False) -> None:
        """Record a node's failure, and log it unless that has been done already."""
        phase.errors[str(node_id)] = self._with_partition_id(node_id, reason)
        if not is_logged:
            log(WARNING, "\t> Node %d: %s", node_id, phase.errors[str(node_id)])

    def _with_partition_id(self, node_id: int, reason: str) -> str:
        """Return the reason with the node's partition-id in front, unless the ClientApp has already added it."""
        if "partition-id " in reason:
            return reason
        return f"partition-id {self._participants.partition_ids.get(node_id, 'unknown')}: {reason}"

    def _finish_phase(self, phase: Phase, metrics: MetricRecord | None) -> None:
        now = time.monotonic()
        phase.metrics = dict(metrics or {})
        phase.seconds = now - self._phase_started
        self.rounds[-1].seconds = now - self.rounds[-1].started

    @staticmethod
    def _join_errors(phase: Phase) -> str:
        if not phase.errors:
            return "no node got a message"
        return "; ".join(f"node {node_id}: {reason}" for node_id, reason in phase.errors.items())
