"""The SuperNodes that take part in a run, while the fleet grows and shrinks.

A run's number of partitions is fixed when it starts: the configured size of the fleet, or the number of SuperNodes
online then, if that is larger. Another number would put one node's training data into another node's test data. A
SuperNode that joins later takes part if the run has its partition. Otherwise it takes part
from the next run on. Every change is logged and recorded.
"""

import re
from collections.abc import Callable, Collection, Iterable
from logging import INFO, WARNING
from typing import Any, Literal

from flwr.common.logger import log


class Members:
    """The SuperNodes that take part in a run, and the changes to the fleet during it.

    Args:
        read_partition_ids: Returns the partition-ids that SuperNodes have reported, by node id.

    Attributes:
        has_started: Whether the run's members are known.
        num_partitions: Number of partitions of the run; None if no size is configured, and then every node takes part.
        at_start: Number of members when the run started.
        partition_ids: The partition-id of each node that has reported it, by node id; also of nodes that have left.
        changes: What happened to the fleet since, oldest first: the entries of `fleet-changes` in `metrics.json`.
        server_round: The round that is in progress, for log lines and `changes`; None outside of rounds.
    """

    def __init__(self, read_partition_ids: Callable[[], dict[int, int]]) -> None:
        self.has_started = False
        self.num_partitions: int | None = None
        self.at_start = 0
        self.partition_ids: dict[int, int] = {}
        self.changes: list[dict[str, Any]] = []
        self.server_round: int | None = None
        self._read_partition_ids = read_partition_ids
        self._members: set[int] = set()
        self._excluded: set[int] = set()
        self._online: set[int] = set()

    def start(self, online: Collection[int], size: int | None) -> None:
        """Fix the number of partitions and the members.

        Args:
            online: The SuperNodes that are online when the run starts.
            size: The configured size of the fleet; None if no size is configured.
        """
        self._learn_partitions(online)
        self.num_partitions = None if size is None else max(size, len(online))
        self._members = {node_id for node_id in online if self._has_partition_of(node_id, or_unknown=True)}
        self._online = set(self._members)
        self.at_start = len(self._members)
        self.has_started = True
        self.update(online)

    def update(self, online: Iterable[int]) -> list[int]:
        """Record who joined and who left since the last update, and return the members that are online, sorted.

        Args:
            online: The SuperNodes that are online now.
        """
        now = set(online)
        self._learn_partitions(now - self._online)
        for node_id in sorted(self._online - now):
            remaining = f"{len(now & self._members)} of {len(self._members)} remain online"
            self._record(node_id, "left", remaining)
        for node_id in sorted((now & self._members) - self._online):
            if self._has_partition_of(node_id, or_unknown=True):
                self._record(node_id, "joined", "it left earlier and has rejoined")
            else:  # it was restarted, and got another partition
                self._members.discard(node_id)
        for node_id in sorted(now - self._members - self._excluded):
            self._admit(node_id)
        self._online = now & (self._members | self._excluded)
        return sorted(now & self._members)

    def _learn_partitions(self, newcomers: Collection[int]) -> None:
        """Read the partition-ids of nodes that come online. A node that is online keeps its partition in this run."""
        reported = self._read_partition_ids()
        current = {node_id: reported[node_id] for node_id in newcomers if node_id in reported}
        self.partition_ids = reported | self.partition_ids | current

    def partition(self, node_id: int) -> str:
        """Return a node's partition as shown to people, for example `partition-id 4`."""
        return f"partition-id {self.partition_ids.get(node_id, 'unknown')}"

    def with_partition(self, node_id: int, reason: str) -> str:
        """Return why a node failed, with its partition in front unless the reason names it."""
        partition = self.partition(node_id)
        return reason if re.search(rf"{partition}\b", reason) else f"{partition}: {reason}"

    def _has_partition_of(self, node_id: int, *, or_unknown: bool = False) -> bool:
        """Return whether the run has a node's partition."""
        if self.num_partitions is None:
            return True
        partition_id = self.partition_ids.get(node_id)
        return or_unknown if partition_id is None else partition_id < self.num_partitions

    def _admit(self, newcomer: int) -> None:
        """Let a SuperNode take part from now on, or from the next run on."""
        if self._has_partition_of(newcomer):
            self._members.add(newcomer)
            self._record(newcomer, "joined", "it takes part from now on")
            return
        self._excluded.add(newcomer)
        if newcomer in self.partition_ids:
            reason = f"this run has partitions 0 to {(self.num_partitions or 0) - 1}"
        else:
            reason = "it has not reported its partition-id"
        self._record(newcomer, "joined", f"{reason}, so it takes part from the next run on")

    def _record(self, node_id: int, what: Literal["joined", "left"], why: str) -> None:
        takes_part = node_id in self._members
        self.changes.append(
            {
                "round": self.server_round,
                "node": str(node_id),  # 64 bits: too large for a JSON number
                "partition-id": self.partition_ids.get(node_id),
                "what": what,
                "takes-part": takes_part,
                "why": why,
            }
        )
        level = WARNING if what == "left" and takes_part else INFO
        when = "" if self.server_round is None else f"Round {self.server_round}: "
        log(level, "%sSuperNode %d (%s) %s; %s", when, node_id, self.partition(node_id), what, why)
