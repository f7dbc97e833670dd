"""The node that a ClientApp runs on: its partition, its dataset, and its partition-id in errors."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable

from app import dataset
from app.dataset import Dataset
from app.exceptions import AppError, NodeError, SettingError
from app.partition import Partition, load_partition
from app.run_config import RunConfig

_HINT = 'start the SuperNode with e.g. --node-config "partition-id=0 num-partitions=10"'


@dataclass(frozen=True)
class Node:
    """A checked node config.

    Attributes:
        partition_id: The node's partition, from 0 to `num_partitions` - 1.
        num_partitions: Number of partitions that the dataset is split into.
        dataset: Path of the node's own dataset, used instead of the one that a message names; None if it has none.
    """

    partition_id: int
    num_partitions: int
    dataset: str | None = None

    @classmethod
    def parse(cls, node_config: Mapping[str, Any]) -> Node:
        """Return the node that a node config describes.

        Args:
            node_config: The node config as Flower passes it.

        Raises:
            SettingError: A key is missing, has the wrong type or is out of range.
        """
        count = _integer(node_config, "num-partitions")
        if count < 1:
            raise SettingError("num-partitions", count, "must be at least 1", _HINT)
        partition_id = _integer(node_config, "partition-id")
        if not 0 <= partition_id < count:
            rule = f"must be from 0 to {count - 1}, as num-partitions={count}"
            raise SettingError("partition-id", partition_id, rule, _HINT)
        path = node_config.get("dataset")
        if path is not None and not isinstance(path, str):
            raise SettingError("node-config dataset", path, "must be a path", "give the path of a folder")
        return cls(partition_id, count, path)

    def partition(self, message: Message, config: RunConfig) -> Partition:
        """Return this node's partition of the dataset that the message names.

        The message's number of partitions takes precedence over the node config's: the fleet may have grown since the
        run started.

        Args:
            message: The message; its config names the dataset.
            config: The run-config.

        Raises:
            SettingError: The dataset does not exist or is unsuitable, or the run does not have this node's partition.
        """
        message_config = message.content.config_records.get("config", ConfigRecord())
        num_partitions = int(message_config.get("num-partitions", self.num_partitions))  # type: ignore[arg-type]
        if self.partition_id >= num_partitions:
            raise SettingError(
                "partition-id",
                self.partition_id,
                f"this run started with {num_partitions} SuperNodes and has partitions 0 to {num_partitions - 1}",
                "start another run: it will include this SuperNode",
            )
        source: Dataset = dataset.on_node(
            str(message_config.get("dataset", config.dataset)),
            str(message_config.get("dataset-revision", "")),
            self.dataset,
        )
        return load_partition(source, partition_id=self.partition_id, num_partitions=num_partitions, seed=config.seed)

    def record(self) -> ConfigRecord:
        """Return the record that identifies this node in a reply; strategies do not aggregate config records."""
        return ConfigRecord({"partition-id": self.partition_id})


def name_errors(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: raise an exception again as a `NodeError` with the node's partition-id and the traceback.

    Of an exception, only its message reaches the run's log. An `AppError` gets no traceback.
    """
    try:
        return call_next(message, context)
    except Exception as error:
        text = f"partition-id {context.node_config.get('partition-id')}: {error}"
        if not isinstance(error, AppError):
            text = f"partition-id {context.node_config.get('partition-id')}: {traceback.format_exc()}"
        raise NodeError(text) from error


def _integer(node_config: Mapping[str, Any], key: str) -> int:
    value = node_config.get(key, "")
    if isinstance(value, bool) or not isinstance(value, int):
        problem = "is missing from the node config" if value == "" else "must be a whole number"
        raise SettingError(key, value, problem, _HINT)
    return value
