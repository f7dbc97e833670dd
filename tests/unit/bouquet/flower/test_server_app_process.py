"""How a ServerApp's Grid waits for replies."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import Error, Message, MessageType, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import GetNodesResponse

from bouquet.flower.message_files import MessageFiles
from bouquet.flower.server_app_process import WaitingGrid


class Grid(WaitingGrid):
    """A Grid whose SuperLink gives one reply at each pull."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.pushed = {f"m{number}": one for number, one in enumerate(messages)}
        for message_id, one in self.pushed.items():
            one.metadata.__dict__["_message_id"] = message_id
        return list(self.pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        first = min(message_ids)
        metadata = Metadata(1, "r", SUPERLINK_NODE_ID, SUPERLINK_NODE_ID, first, "", 0.0, 1.0, MessageType.QUERY)
        return [make_message(metadata, error=Error(3, "Node is unavailable"))]


def test_all_replies_are_collected_and_the_superlinks_errors_name_their_nodes() -> None:
    grid = Grid("127.0.0.1:1", insecure=True, token="token")
    replies = grid.send_and_receive(Message(RecordDict(), node, MessageType.QUERY) for node in (11, 12))
    assert [(reply.metadata.src_node_id, reply.error.reason) for reply in replies] == [
        (11, "SuperNode 11: Node is unavailable"),
        (12, "SuperNode 12: Node is unavailable"),
    ]


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

    monkeypatch.setattr("bouquet.flower.server_app_process.RuntimeStub", Stub)
    monkeypatch.setattr("bouquet.flower.server_app_process.wrap_stub", lambda stub, retries: None)
    files = MessageFiles(tmp_path)
    files.write("object", "here", b"content")
    stub: Any = WaitingGrid("127.0.0.1:1", insecure=True, token="token", objects=files)._stub
    here, missing = (stub.PullObject(PullObjectRequest(object_id=name)) for name in ("here", "missing"))
    assert (here.object_found, here.object_available, here.object_content) == (True, True, b"content")
    assert (missing.object_found, missing.object_available) == (True, False)
    assert stub.asked == ["missing"]
