"""That a node replies to the message that it has, whatever became of the one before."""

from types import SimpleNamespace
from typing import Any

import pytest
from flwr.proto.message_pb2 import ObjectTree

from bouquet.flower import supernode_main as supernode
from bouquet.flower.supernode_main import Node
from tests.unit.bouquet.flower.fakes import after


def reply(message_id: str, replied_to: str) -> Any:
    return SimpleNamespace(metadata=SimpleNamespace(message_id=message_id, reply_to_message_id=replied_to))


class State:
    """A node's state: replies that are there."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.deleted: list[str] = []

    def get_messages(self, **which: Any) -> list[Any]:
        return self.replies

    def delete_messages(self, message_ids: list[str]) -> None:
        self.deleted += message_ids

    def delete(self, object_id: str) -> None:
        self.deleted.append(object_id)


def push(node: Node, state: State, objects: Any, answer: tuple[set[str], str] | Exception) -> list[str]:
    """Push replies as Flower does: send each, then forget it with its objects. Returns those that were sent."""
    sent = []

    def send(message: Any, tree: Any, runtime: float) -> tuple[set[str], str]:
        sent.append(message.metadata.message_id)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stock(state: Any, object_store: Any, send: Any, push_object: Any) -> None:
        for message in state.get_messages(is_reply=True):
            send(message, ObjectTree(object_id="root", children=[ObjectTree(object_id="part")]), 0.0)
            objects["forgotten"] = dict(objects)

    store: Any = SimpleNamespace(get=objects.get, delete=state.delete)
    node.push_replies(stock, state=state, object_store=store, send=send, push_object=None)
    return sent


@pytest.fixture
def node() -> Node:
    node = Node()
    received = SimpleNamespace(metadata=SimpleNamespace(message_id="new")), None
    node.receive(lambda: received)
    return node


def test_a_reply_to_a_message_before_is_dropped(node: Node) -> None:
    state = State(reply("a", "old"), reply("b", "new"))
    assert push(node, state, {"root": b"1", "part": b"1"}, ({"root"}, "session")) == ["b"]
    assert state.deleted == ["a", "a"]


@pytest.mark.parametrize("answer", [(set(), ""), RuntimeError("the run has ended")])
def test_a_reply_that_is_refused_is_forgotten_only_once_it_is_all_there(
    node: Node, answer: tuple[set[str], str] | Exception
) -> None:
    objects: dict[str, Any] = {"root": b"1", "part": b""}
    after(0.1, lambda: objects.update(part=b"1"))
    try:
        push(node, State(reply("b", "new")), objects, answer)
        assert objects["forgotten"]["part"] == b"1"
    except RuntimeError:
        assert objects["part"] == b"1"


def test_a_reply_that_is_never_all_there_is_not_waited_for_for_ever(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supernode, "OBJECTS_PATIENCE", 0.2)
    assert push(node, State(reply("b", "new")), {"root": b"1", "part": b""}, (set(), "")) == ["b"]
