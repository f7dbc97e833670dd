"""The SuperNodes that a run counts on, while the fleet grows and shrinks around it.

A run cuts its dataset into as many partitions as the fleet was to have at its start (more, where nodes from elsewhere
had joined it), and keeps to that: with another cut, one node's training images would be another's test images. So a
node that comes later is asked which partition it holds. Where that is one of the run's, it takes part from then on: it
stands in for one that went. Where it is not, it waits for the next run. All of this is told in the run's log, and in
`metrics.json` as ``fleet-changes``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from logging import INFO, WARNING
from typing import Any, NoReturn

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from app.errors import FleetError

PLACE = f"{MessageType.QUERY}.place"
_POLL_SECONDS = 0.5


class Roll:
    """Who takes part.

    Attributes:
        num_partitions: How many partitions the run has; None where nobody says, and every node takes part.
        at_start: How many nodes there were.
        partition_ids: Which partition each node holds, as far as it has said so.
        changes: What happened to the fleet during the run, in order.
    """

    def __init__(self, node_ids: Iterable[int], size: int | None) -> None:
        self.partition_ids: dict[int, int] = {}
        self.changes: list[dict[str, Any]] = []
        self._members = set(node_ids)
        self.at_start = len(self._members)
        self.num_partitions = None if size is None else max(size, self.at_start)
        self._present = set(self._members)
        self._left_out: set[int] = set()
        self._asked: dict[str, int] = {}

    def call(self, grid: Grid, server_round: int, deadline: float) -> list[int]:
        """Note who came and went, and return the ids of those that are online and take part.

        Waits while there is none: a SuperLink that has just been restarted takes a moment to see its nodes again.

        Raises:
            FleetError: There was none for `deadline` seconds.
        """
        began = time.monotonic()
        while not (present := self._look(grid, server_round)):
            if time.monotonic() - began >= deadline:
                raise FleetError(
                    f"round-deadline={deadline:g}: in round {server_round} none of the run's SuperNodes was online for "
                    "that many seconds; look at their logs, and start them: make up"
                )
            time.sleep(_POLL_SECONDS)
        return present

    def _look(self, grid: Grid, server_round: int) -> list[int]:
        online = set(grid.get_node_ids())
        for node_id in sorted(self._present - online):
            self._note(server_round, node_id, "went", f"{len(online & self._members)} of {len(self._members)} are left")
        for node_id in sorted((online & self._members) - self._present):
            self._note(server_round, node_id, "came", "it is back")
        self._hear(grid, server_round)
        self._ask(grid, online - self._members - self._left_out - set(self._asked.values()))
        self._present = online & (self._members | self._left_out)
        return sorted(online & self._members)

    def _ask(self, grid: Grid, newcomers: set[int]) -> None:
        """Ask those who are new which partition they hold; the answers are looked for at the next call."""
        messages = [Message(RecordDict(), node_id, PLACE) for node_id in sorted(newcomers)]
        if messages:
            # No id: the SuperLink did not take the message, and the node is asked again at the next call.
            asked = zip(grid.push_messages(messages), sorted(newcomers), strict=False)
            self._asked |= {message_id: node_id for message_id, node_id in asked if message_id}

    def _hear(self, grid: Grid, server_round: int) -> None:
        for answer in grid.pull_messages(list(self._asked)) if self._asked else ():
            node_id = self._asked.pop(answer.metadata.reply_to_message_id)
            if answer.has_error():
                continue  # it has gone again, or is asked anew
            named = answer.content.config_records.get("node", ConfigRecord())
            partition_id = self.partition_ids[node_id] = int(named["partition-id"])  # type: ignore[arg-type]
            if self.num_partitions is None or partition_id < self.num_partitions:
                self._members.add(node_id)
                self._note(server_round, node_id, "came", "it takes part from now on")
            else:
                self._left_out.add(node_id)
                why = f"this run has partitions 0 to {self.num_partitions - 1}: it takes part from the next run on"
                self._note(server_round, node_id, "came", why)

    def _note(self, server_round: int, node_id: int, what: str, why: str) -> None:
        partition_id = self.partition_ids.get(node_id)
        counted = node_id in self._members
        self.changes.append(
            {
                "round": server_round,
                "node": str(node_id),  # 64 bits: more than a JSON number holds
                "partition-id": partition_id,
                "what": what,
                "takes-part": counted,
                "why": why,
            }
        )
        holds = "unknown" if partition_id is None else partition_id
        level = WARNING if what == "went" and counted else INFO
        log(level, "Round %d: SuperNode %d (partition-id %s) %s; %s", server_round, node_id, holds, what, why)


class PlacesOnly(Grid):
    """What Flower's strategies sample from: a fixed list of nodes.

    They ask the grid twice, once for how many nodes there are and once for which: where one goes in between, they
    would wait for ever for as many as there were.
    """

    def __init__(self, node_ids: list[int]) -> None:
        self._node_ids = node_ids

    def get_node_ids(self) -> Iterable[int]:
        """Return the list."""
        return self._node_ids

    def _only_that(self, *arguments: Any, **options: Any) -> NoReturn:
        raise NotImplementedError("only for sampling nodes")

    run = property(_only_that)
    set_run = create_message = push_messages = pull_messages = send_and_receive = _only_that
