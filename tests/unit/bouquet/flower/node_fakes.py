"""A SuperNode without a SuperLink: a fake connection, Flower's own state, and a ClientApp process by hand."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

from flwr.app import ConfigRecord, Error, Message, MessageType, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from bouquet.flower.messages import with_message_id
from bouquet.flower.node_session import REPLIES, NodeSession
from bouquet.flower.supernode_main import MessageLoop

NODE_ID, RUN_ID = 7, 1
CREATED_AT, TTL_SECONDS = 1.7e9, 1e9
CONFIG: dict[str, Any] = {"partition-id": 3, "num-partitions": 4, "dataset": "/data"}

PYPROJECT = """
[project]
name = "app"
version = "1.0.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:client"
"""


def message(number: int, run_id: int = RUN_ID) -> Message:
    """A message to the node, with its id."""
    content = RecordDict({"config": ConfigRecord({"number": number})})
    metadata = Metadata(run_id, "", 1, NODE_ID, "", "", CREATED_AT, TTL_SECONDS, MessageType.QUERY)
    return with_message_id(make_message(metadata, content))


def deflated(whole: Message) -> dict[str, bytes]:
    with no_object_id_recompute():
        return {object_id: content.deflate() for object_id, content in get_all_nested_objects(whole).items()}


class FakeClient:
    """The connection to a SuperLink that has some messages for the node, and accepts its replies."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.objects = {key: value for one in messages for key, value in deflated(one).items()}
        self.on_empty: Callable[[], None] = lambda: None
        self.on_pull_object: Callable[[], None] = lambda: None
        self.on_send: Callable[[Message], None] = lambda reply: None
        self.accepts = True
        self.num_partitions: int | None = None
        self.runs: set[int] = set()
        self.sent: list[Message] = []
        self.pushed: set[str] = set()
        self.confirmed: list[str] = []

    def receive(self) -> tuple[Message, ObjectTree] | None:
        if not self.messages:
            self.on_empty()
            return None
        received = self.messages.pop(0)
        return remove_content_from_message(received), get_object_tree(received)

    def send(self, reply: Message, object_tree: ObjectTree, clientapp_seconds: float) -> tuple[set[str], str]:
        self.sent.append(reply)
        self.on_send(reply)
        return (
            ({node.object_id for node in iterate_object_tree(object_tree)}, "session") if self.accepts else (set(), "")
        )

    def get_run(self, run_id: int) -> Run:
        if run_id in self.runs:  # asked by what watches the run
            raise RunNotRunningException
        self.runs.add(run_id)
        return Run.create_empty(run_id)

    def join_run(self, run_id: int) -> tuple[Run, int | None]:
        return self.get_run(run_id), self.num_partitions

    def get_fab(self, fab_hash: str, run_id: int) -> Fab:
        fab = io.BytesIO()
        with zipfile.ZipFile(fab, "w") as archive:
            archive.writestr("pyproject.toml", PYPROJECT)
        return Fab("", fab.getvalue(), {})

    def pull_object(self, run_id: int, object_id: str) -> bytes:
        self.on_pull_object()
        return self.objects[object_id]

    def push_object(self, run_id: int, session_id: str, object_id: str, content: bytes) -> None:
        self.pushed.add(object_id)

    def confirm_message_received(self, run_id: int, message_id: str) -> None:
        self.confirmed.append(message_id)


class Node:
    """A SuperNode's main loop, with a fake connection."""

    def __init__(self, *messages: Message) -> None:
        factory = ObjectStoreFactory()
        self.session = NodeSession()
        self.client = FakeClient(*messages)
        self.objects = factory.store()
        state = NodeStateFactory(factory).state()
        assert isinstance(state, InMemoryNodeState)
        self.state = state
        self.state.set_node_id(NODE_ID)
        client: Any = self.client
        self.loop = MessageLoop(self.session, client, self.state, self.objects, CONFIG)

    def hand_over(self, reply: Message, without: int = 0) -> list[tuple[str, bytes]]:
        """Hand over a reply as a ClientApp process does; return the last objects of it, as many as are kept back."""
        reply = with_message_id(reply)
        objects = list(deflated(reply).items())
        session_id = self.state.start_session(RUN_ID)
        with no_object_id_recompute():
            tree = get_object_tree(reply)
        assert self.state.store_message_and_object_tree(remove_content_from_message(reply), tree, session_id)[0]
        self.session.notifier.notify(REPLIES)
        here, kept = objects[: len(objects) - without], objects[len(objects) - without :]
        self.put(here)
        return kept

    def put(self, objects: list[tuple[str, bytes]]) -> None:
        """Hand over objects of a reply."""
        for object_id, content in objects:
            self.objects.put(object_id, content)
            self.session.notifier.notify(REPLIES)

    def replies(self) -> list[str]:
        """Ids of the replies that are still here."""
        return [key for key, entry in self.state.msg_store.items() if entry.message.metadata.reply_to_message_id]


def reply_to(received: Message, number: int = 100) -> Message:
    return Message(RecordDict({"config": ConfigRecord({"number": number})}), reply_to=received)


def error_to(received: Message) -> Message:
    return Message(Error(ErrorCode.CLIENT_APP_CRASHED, "killed"), reply_to=received)
