"""The SuperNodes that take part in a run, while the fleet grows and shrinks.

A run splits its dataset into a fixed number of partitions: the configured size of the fleet when the run starts, or
the number of SuperNodes online then, if that is larger. Another split would put one node's training images into another
node's test set. A SuperNode that joins later is therefore asked for its partition-id. If the run has that partition,
the SuperNode takes part from then on, in place of one that left. Otherwise it takes part from the next run on. Every
change is logged and recorded in `metrics.json` as ``fleet-changes``.
"""

from __future__ import annotations

from collections.abc import Iterable
from logging import INFO, WARNING
from typing import Any, Literal, NoReturn

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from app.exceptions import FleetError
from app.fleet import poll_nodes
from app.run_log import log

PARTITION_ID_QUERY = f"{MessageType.QUERY}.partition_id"


class Participants:
    """The SuperNodes that take part in a run, and the changes to the fleet during it.

    Args:
        node_ids: The SuperNodes that are online when the run starts.
        size: The configured size of the fleet; None if no size is configured.

    Attributes:
        num_partitions: Number of partitions of the run; None if no size is configured, and then every node takes part.
        at_start: Number of SuperNodes when the run started.
        partition_ids: The partition-id of each node that has reported it, by node id.
        changes: The entries of ``fleet-changes``, oldest first.
    """

    def __init__(self, node_ids: Iterable[int], size: int | None) -> None:
        self.partition_ids: dict[int, int] = {}
        self.changes: list[dict[str, Any]] = []
        self._members = set(node_ids)
        self.at_start = len(self._members)
        self.num_partitions = None if size is None else max(size, self.at_start)
        self._online = set(self._members)
        self._excluded: set[int] = set()
        self._queries: dict[str, int] = {}

    def await_online(self, grid: Grid, server_round: int, deadline: float) -> list[int]:
        """Return the ids of the participants that are online, and record who joined and who left.

        Waits while none is online: for a moment after a restart the SuperLink counts no node as online.

        Args:
            grid: The fleet.
            server_round: The round that is about to start.
            deadline: How long to wait, in seconds.

        Raises:
            FleetError: No participant was online for `deadline` seconds.
        """
        online = poll_nodes(lambda: self._update(grid, server_round), 1, deadline)
        if not online:
            raise FleetError(
                f"round-deadline={deadline:g}: in round {server_round} none of the run's SuperNodes was online for "
                "that many seconds; read their logs (make logs) and start them (make up)"
            )
        return online

    def _update(self, grid: Grid, server_round: int) -> list[int]:
        """Return the ids of the participants that are online, after recording all changes since the last update."""
        online = set(grid.get_node_ids())
        for node_id in sorted(self._online - online):
            remaining = f"{len(online & self._members)} of {len(self._members)} remain online"
            self._record_change(server_round, node_id, "left", remaining)
        for node_id in sorted((online & self._members) - self._online):
            self._record_change(server_round, node_id, "joined", "it left earlier and has rejoined")
        self._receive_partition_ids(grid, server_round)
        self._query_partition_ids(grid, online - self._members - self._excluded - set(self._queries.values()))
        self._online = online & (self._members | self._excluded)
        return sorted(online & self._members)

    def _query_partition_ids(self, grid: Grid, newcomers: set[int]) -> None:
        """Ask newcomers for their partition-ids; the next update receives the replies."""
        messages = [Message(RecordDict(), node_id, PARTITION_ID_QUERY) for node_id in sorted(newcomers)]
        if messages:
            # An empty id means that the SuperLink rejected the message; the next update asks that node again.
            queries = zip(grid.push_messages(messages), sorted(newcomers), strict=False)
            self._queries |= {message_id: node_id for message_id, node_id in queries if message_id}

    def _receive_partition_ids(self, grid: Grid, server_round: int) -> None:
        for reply in grid.pull_messages(list(self._queries)) if self._queries else ():
            node_id = self._queries.pop(reply.metadata.reply_to_message_id)
            if reply.has_error():
                continue  # if the node is still online, this update asks it again
            record = reply.content.config_records.get("node", ConfigRecord())
            partition_id = self.partition_ids[node_id] = int(record["partition-id"])  # type: ignore[arg-type]
            if self.num_partitions is None or partition_id < self.num_partitions:
                self._members.add(node_id)
                self._record_change(server_round, node_id, "joined", "it takes part from this round on")
            else:
                self._excluded.add(node_id)
                last = self.num_partitions - 1
                why = f"this run has partitions 0 to {last}, so it takes part from the next run on"
                self._record_change(server_round, node_id, "joined", why)

    def _record_change(self, server_round: int, node_id: int, what: Literal["joined", "left"], why: str) -> None:
        partition_id = self.partition_ids.get(node_id)
        takes_part = node_id in self._members
        self.changes.append(
            {
                "round": server_round,
                "node": str(node_id),  # 64 bits: too large for a JSON number
                "partition-id": partition_id,
                "what": what,
                "takes-part": takes_part,
                "why": why,
            }
        )
        shown = "unknown" if partition_id is None else partition_id
        level = WARNING if what == "left" and takes_part else INFO
        log(level, "Round %d: SuperNode %d (partition-id %s) %s; %s", server_round, node_id, shown, what, why)


class FixedNodesGrid(Grid):
    """A grid with a fixed list of nodes, for a strategy to sample from.

    Flower's strategies ask the grid twice: for the number of nodes, then for their ids. If a node left in between, they
    would wait forever for the number to be reached again.

    Args:
        node_ids: The nodes to sample from.
    """

    def __init__(self, node_ids: list[int]) -> None:
        self._node_ids = node_ids

    def get_node_ids(self) -> Iterable[int]:
        """Return the fixed list."""
        return self._node_ids

    def _unsupported(self, *arguments: Any, **options: Any) -> NoReturn:
        raise NotImplementedError("FixedNodesGrid only serves to sample nodes")

    run = property(_unsupported)
    set_run = create_message = push_messages = pull_messages = send_and_receive = _unsupported
