"""How a Grid waits for replies."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message, MessageType, Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import GetNodesResponse

from bouquet.flower import waiting_grid
from bouquet.flower.message_files import MessageFiles
from bouquet.flower.waiting_grid import WaitingGrid


class Grid(WaitingGrid):
    """A Grid whose SuperLink gives one reply at each pull, and none to messages whose ids start with `lost`."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in sorted(message_ids):
            if not message_id.startswith("lost"):
                metadata = Metadata(
                    1, "r", SUPERLINK_NODE_ID, SUPERLINK_NODE_ID, message_id, "", 0.0, 1.0, MessageType.QUERY
                )
                return [make_message(metadata, error=Error(3, "Node is unavailable"))]
        return []


def answered(replies: Iterable[Message]) -> list[str]:
    return [reply.metadata.reply_to_message_id for reply in replies]


def test_all_replies_are_collected() -> None:
    grid = Grid("127.0.0.1:1", insecure=True, token="token")
    assert answered(grid.wait_for_replies(["m1", "m2"], None)) == ["m1", "m2"]


def test_a_reply_that_does_not_come_is_waited_for_until_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_grid, "STOCK_POLL_SECONDS", 0.01)
    grid = Grid("127.0.0.1:1", insecure=True, token="token")
    start = time.monotonic()
    assert answered(grid.wait_for_replies(["lost", "m1"], 0.2)) == ["m1"]
    assert time.monotonic() - start >= 0.2


def test_a_grid_connects_at_its_first_call_and_again_after_close(monkeypatch: Any) -> None:
    grid = WaitingGrid("127.0.0.1:1", insecure=True, token="token")
    for _ in range(2):
        stub: Any = grid._stub
        assert grid._stub is stub
        stub.GetNodes = lambda request: GetNodesResponse(nodes=[Node(node_id=5)])
        assert list(grid.get_node_ids()) == [5]
        grid.close()


def test_an_object_is_read_from_its_file_and_pulled_only_if_it_has_none(tmp_path: Path, monkeypatch: Any) -> None:
    class Stub:
        def __init__(self, channel: object) -> None:
            self.asked: list[str] = []

            self.PullObject = self.pull

        def pull(self, request: PullObjectRequest) -> PullObjectResponse:
            self.asked.append(request.object_id)
            return PullObjectResponse(object_found=True)

    monkeypatch.setattr("bouquet.flower.waiting_grid.RuntimeStub", Stub)
    monkeypatch.setattr("bouquet.flower.waiting_grid.wrap_stub", lambda stub, retries: None)
    files = MessageFiles(tmp_path)
    files.write("object", "here", b"content")
    stub: Any = WaitingGrid("127.0.0.1:1", insecure=True, token="token", objects=files)._stub
    here, missing = (stub.PullObject(PullObjectRequest(object_id=name)) for name in ("here", "missing"))
    assert (here.object_found, here.object_available, here.object_content) == (True, True, b"content")
    assert (missing.object_found, missing.object_available) == (True, False)
    assert stub.asked == ["missing"]
