"""The node a ClientApp runs on: its place in the fleet, its data, and its name in errors."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable

from app import dataset
from app.dataset import Dataset
from app.errors import AppError, NodeError, SettingError
from app.partition import Partition, load_partition
from app.run_config import RunConfig

_MEND = 'start the SuperNode with e.g. --node-config "partition-id=0 num-partitions=10"'


@dataclass(frozen=True)
class Node:
    """A node's place in the fleet.

    Attributes:
        partition_id: Which partition it holds, from 0 to `num_partitions` - 1.
        num_partitions: How many partitions the dataset is cut into.
        dataset: The node's own path, which wins over what a message names.
    """

    partition_id: int
    num_partitions: int
    dataset: str | None = None

    @classmethod
    def parse(cls, node_config: Mapping[str, Any]) -> Node:
        """Check a node config.

        Raises:
            SettingError: A key is missing, has the wrong type or is out of range.
        """
        count = _integer(node_config, "num-partitions")
        if count < 1:
            raise SettingError("num-partitions", count, "must be at least 1", _MEND)
        partition_id = _integer(node_config, "partition-id")
        if not 0 <= partition_id < count:
            rule = f"must be from 0 to {count - 1}, as num-partitions={count}"
            raise SettingError("partition-id", partition_id, rule, _MEND)
        path = node_config.get("dataset")
        if path is not None and not isinstance(path, str):
            raise SettingError("node-config dataset", path, "must be a path", "give the path of a folder")
        return cls(partition_id, count, path)

    def partition(self, message: Message, config: RunConfig) -> Partition:
        """Return this node's images of the dataset that the message names.

        The message may say, too, into how many partitions the run cuts it: the fleet may have grown since.

        Raises:
            SettingError: The dataset is not there, or not fit, or the run has no such partition.
        """
        named = message.content.config_records.get("config", ConfigRecord())
        num_partitions = int(named.get("num-partitions", self.num_partitions))  # type: ignore[arg-type]
        if self.partition_id >= num_partitions:
            raise SettingError(
                "partition-id",
                self.partition_id,
                f"this run began with {num_partitions} SuperNodes, and has partitions 0 to {num_partitions - 1}",
                "start another run: it counts on the fleet as it is then",
            )
        source: Dataset = dataset.on_node(
            str(named.get("dataset", config.dataset)), str(named.get("dataset-revision", "")), self.dataset
        )
        return load_partition(source, partition_id=self.partition_id, num_partitions=num_partitions, seed=config.seed)

    def record(self) -> ConfigRecord:
        """Return what names this node in a reply: strategies aggregate metrics and arrays, and leave it alone."""
        return ConfigRecord({"partition-id": self.partition_id})


def name_errors(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: put the partition-id before an exception's text, and the traceback after it.

    The text is all of an exception that reaches the run's log. A bad setting needs no traceback.
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
        raise SettingError(key, value, problem, _MEND)
    return value
