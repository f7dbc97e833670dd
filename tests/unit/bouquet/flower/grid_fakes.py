"""A Grid without a SuperLink: nodes that answer in this process."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message, MessageType, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.run import Run
from flwr.superlink.grid import GrpcGrid

from bouquet.contract.fleet_size import write_size
from bouquet.contract.partitions import write_partition_ids
from bouquet.flower.messages import error_from_node
from bouquet.flower.run_grid import RunGrid
from bouquet.settings.run_settings import RunSettings

FIRST_NODE = 100
RUN_ID = 1


class FakeFleet:
    """Nodes `FIRST_NODE + k` with partition k, and the grid of a run on them.

    Attributes:
        online: The nodes that are online.
        answer: The ClientApp of all nodes; returns None for no reply. An exception becomes an error reply.
        unavailable: Nodes in whose place the SuperLink answers.
        pushed: All messages that were pushed.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, nodes: int) -> None:
        self.folder = folder
        self.online = [FIRST_NODE + k for k in range(nodes)]
        self.answer: Callable[[Message], Message | None] = lambda message: Message(RecordDict(), reply_to=message)
        self.unavailable: set[int] = set()
        self.pushed: list[Message] = []
        self._answers: dict[str, Message] = {}
        self._ids = itertools.count()
        self.resize(nodes)
        self.report({FIRST_NODE + k: k for k in range(nodes)})
        monkeypatch.setattr(GrpcGrid, "get_node_ids", lambda grid: list(self.online))
        monkeypatch.setattr(GrpcGrid, "push_messages", lambda grid, messages: self._push(messages))
        monkeypatch.setattr(GrpcGrid, "pull_messages", lambda grid, message_ids: self._pull(message_ids))
        self.grid = self.new_grid()

    def new_grid(self, **settings: Any) -> RunGrid:
        """The grid of a run."""
        given: dict[str, Any] = {
            "fleet_deadline": 0.05,
            "round_deadline": 0.05,
            "results_dir": self.folder / "results",
            "run_dir": self.folder,
        }
        grid = RunGrid("127.0.0.1:1", insecure=True, token="token", settings=RunSettings(**given | settings))
        grid.set_run(Run.create_empty(RUN_ID))
        return grid

    def resize(self, size: int) -> None:
        """Configure the fleet's size."""
        write_size(self.folder / "size", size)

    def report(self, partition_ids: dict[int, int]) -> None:
        """Have the SuperLink know the partitions of these nodes."""
        write_partition_ids(self.folder, partition_ids)

    def messages(self, *node_ids: int) -> list[Message]:
        """A message to each node, by default to all that are online."""
        return [Message(RecordDict(), node_id, MessageType.TRAIN) for node_id in node_ids or self.online]

    def _push(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            message_id, node_id = f"m{next(self._ids)}", message.metadata.dst_node_id
            message.metadata.__dict__.update(_run_id=RUN_ID, _message_id=message_id, _src_node_id=SUPERLINK_NODE_ID)
            if node_id not in self.online:
                ids.append("")
                continue
            self.pushed.append(message)
            ids.append(message_id)
            if (reply := self._reply(message)) is not None:
                self._answers[message_id] = reply
        return ids

    def _reply(self, message: Message) -> Message | None:
        if message.metadata.dst_node_id in self.unavailable:
            error = Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
            return error_from_node(error, SUPERLINK_NODE_ID, "Node Unavailable")
        try:
            return self.answer(message)
        except Exception as error:  # as flwr's run_clientapp reports it
            reason = f"{type(error)}:<'{error}'>"
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)

    def _pull(self, message_ids: Iterable[str]) -> list[Message]:
        # The newest first: replies come in any order.
        wanted = sorted(message_ids, reverse=True)
        return [self._answers.pop(message_id) for message_id in wanted if message_id in self._answers]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFleet:
    """Three nodes that are online."""
    monkeypatch.setattr("bouquet.flower.run_grid.POLL_SECONDS", 0.005)
    monkeypatch.setattr("bouquet.flower.waiting_grid.STOCK_POLL_SECONDS", 0.005)
    return FakeFleet(tmp_path, monkeypatch, 3)
