"""A SuperNode's partition, in the metadata of its calls and of the answers.

A node that holds a partition says so. A node of a cluster, or one that has joined from another machine, says what kind
of node it is, and learns from the answers which partition it holds (`bouquet.superlink.partition_map`). A stock
SuperLink ignores the metadata and answers without any.
"""

from collections.abc import Callable
from typing import Any

import grpc

from bouquet.contract.partitions import (
    JOINED,
    NUM_PARTITIONS_HEADER,
    PARTITION_ID_HEADER,
    PINNED_HEADER,
    SLOT_HEADER,
)


class Partition:
    """The partition that a SuperNode holds, and how many there are.

    Attributes:
        partition_id: The partition; None before the SuperLink has assigned one.
        num_partitions: The number of partitions; None if it is unknown.
    """

    def __init__(
        self,
        partition_id: int | None = None,
        num_partitions: int | None = None,
        *,
        slot: int | None = None,
        joined: bool = False,
        pinned: bool = False,
    ) -> None:
        """Start with what is known.

        Args:
            partition_id: The partition that the node holds; None if the SuperLink assigns one.
            num_partitions: The number of partitions; None if it is unknown.
            slot: The node's slot in a cluster, from 0; None outside of a cluster.
            joined: Whether the node has joined from another machine.
            pinned: Whether a node that has joined accepts only `partition_id`.
        """
        self.partition_id = partition_id
        self.num_partitions = num_partitions
        self._is_assigned = joined or slot is not None
        self._wanted = partition_id if pinned else None
        self._slot = JOINED if joined else None if slot is None else str(slot)

    def metadata(self) -> list[tuple[str, str]]:
        """Return what the node says in each call."""
        partition_id = self.partition_id if self._wanted is None else self._wanted
        said = {
            PARTITION_ID_HEADER: None if partition_id is None else str(partition_id),
            SLOT_HEADER: self._slot,
            PINNED_HEADER: None if self._wanted is None else "1",
        }
        return [(name, value) for name, value in said.items() if value is not None]

    def learn(self, metadata: dict[str, str]) -> None:
        """Take over what the SuperLink has said in an answer."""
        if self._is_assigned and PARTITION_ID_HEADER in metadata:
            self.partition_id = int(metadata[PARTITION_ID_HEADER])
        if NUM_PARTITIONS_HEADER in metadata:
            self.num_partitions = int(metadata[NUM_PARTITIONS_HEADER])


class PartitionInterceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc] # grpc has no types
    """Adds the node's metadata to each call, and reads those of the answers to `METHODS`."""

    METHODS = ("/ActivateNode", "/SendNodeHeartbeat", "/PullMessages")

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        """Make one call."""
        metadata = (*(client_call_details.metadata or ()), *self._partition.metadata())
        call = continuation(client_call_details._replace(metadata=metadata), request)
        if str(client_call_details.method).endswith(self.METHODS):
            self._partition.learn(dict(call.trailing_metadata() or ()))
        return call
