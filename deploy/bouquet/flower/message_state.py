"""Messages in the SuperLink's memory, with copies in files for the process that replaces a crashed SuperLink.

With a database, Flower writes every message and every object of it to SQLite: some 165 statements for one round trip of
a no-op message, 0.2 s of CPU, four times all the rest. That makes messages outlive the container. But the ServerApp
that waits for them is a process of the same container and does not outlive it. See
docs/decisions/0009-messages-in-memory.md and 0010-superlink-restarted-in-place.md.
"""

from collections import Counter, UserDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Protocol

from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.node_pb2 import NodeInfo
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.constant import NodeStatus
from flwr.supercore.run import Run
from flwr.superlink.federation import FederationManager

from bouquet.flower.message_files import MessageFiles
from bouquet.flower.object_files import ObjectFiles

MAX_REDELIVERIES = 3  # of one message


class Database(Protocol):
    """What messages need to know of runs and nodes."""

    def find_run(self, run_id: int) -> Run | None:
        """Return a run, or None if there is no such run."""

    def is_finished(self, run_id: int) -> bool:
        """Return whether a run has ended."""

    def nodes_by_id(self) -> Mapping[int, NodeInfo]:
        """Return all nodes."""


class _Runs(Mapping[int, SimpleNamespace]):
    """Runs of the database by id, in the shape of the in-memory state's records: `record.run`.

    A run is looked up once: what messages need of it, its federation, never changes.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: dict[int, SimpleNamespace] = {}

    def __getitem__(self, run_id: int) -> SimpleNamespace:
        if run_id not in self._found:
            if (run := self._database.find_run(run_id)) is None:
                raise KeyError(run_id)
            self._found[run_id] = SimpleNamespace(run=run)
        return self._found[run_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class _Nodes(Mapping[int, NodeInfo]):
    """Nodes of the database by id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __getitem__(self, node_id: int) -> NodeInfo:
        return self._database.nodes_by_id()[node_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._database.nodes_by_id())

    def __len__(self) -> int:
        return len(self._database.nodes_by_id())


class _MessagesByNode(UserDict[str, Message]):
    """Messages by id, in the order in which they came, which are also found by their node."""

    def __init__(self) -> None:
        self._of_nodes: defaultdict[int, dict[str, Message]] = defaultdict(dict)
        super().__init__()

    def __setitem__(self, message_id: str, message: Message) -> None:
        super().__setitem__(message_id, message)
        self._of_nodes[message.metadata.dst_node_id][message_id] = message

    def __delitem__(self, message_id: str) -> None:
        node_id = self.data[message_id].metadata.dst_node_id
        super().__delitem__(message_id)
        del self._of_nodes[node_id][message_id]
        if not self._of_nodes[node_id]:
            del self._of_nodes[node_id]

    def of_node(self, node_id: int) -> dict[str, Message]:
        """Return a node's messages by id, oldest first."""
        return dict(self._of_nodes.get(node_id, {}))


class MessageState(InMemoryLinkState):
    """Flower's in-memory state, used for messages and push sessions only; runs and nodes are those of a database.

    A push session is Flower's record of the objects that are missing from messages of one request.

    Of the files, `message/<id>` is a message or a reply without its content, and `delivered/<id>` means that the
    message was delivered to its node. A reply that was delivered to the ServerApp stays in the files, and its message
    with it, until the ServerApp has confirmed it: a reply whose delivery was lost in a crash is redelivered.
    """

    def __init__(
        self, database: Database, federation_manager: FederationManager, objects: ObjectFiles, files: MessageFiles
    ) -> None:
        super().__init__(federation_manager, objects)
        # These are as much of a dict as the methods for messages need.
        self.run_ids = _Runs(database)  # type: ignore[assignment]
        self.nodes = _Nodes(database)  # type: ignore[assignment]
        self._messages_by_node = _MessagesByNode()
        self.message_ins_store = self._messages_by_node  # type: ignore[assignment]
        self._database = database
        self._objects = objects
        self._files = files
        self._redeliveries: Counter[str] = Counter()
        self._message_of_delivered: dict[str, str] = {}  # replies that the ServerApp has not confirmed yet
        objects.on_root_deleted = self._on_root_deleted

    def _is_finished_run(self, run_id: int) -> bool:
        """Return whether a run has ended; Flower asks before it stores a message or a reply."""
        return self._database.is_finished(run_id)

    # Flower's methods, with copies in files

    def store_message_ins(self, message: Message) -> str | None:
        """Store a message from the ServerApp without its content, and return its id, or None if it is invalid."""
        return self._store(message, super().store_message_ins)

    def store_message_res(self, message: Message) -> str | None:
        """Store a reply without its content, and return its id, or None if it is invalid."""
        return self._store(message, super().store_message_res)

    def _store(self, message: Message, store: Callable[[Message], str | None]) -> str | None:
        with self.lock:
            before = len(self.message_ins_store) + len(self.message_res_store)
            message_id = store(message)
            is_new = len(self.message_ins_store) + len(self.message_res_store) != before
            if message_id is not None and is_new:
                self._files.write("message", message_id, message_to_proto(message).SerializeToString())
        return message_id

    def get_message_ins(self, node_id: int, limit: int | None) -> list[Message]:
        """Return at most `limit` undelivered messages for a node, which count as delivered from now on.

        Flower's method looks at the messages for all nodes, and N nodes pull in every round.
        """
        with self.lock:
            self._check_stored_messages(set(self._messages_by_node.of_node(node_id)))
            messages = [
                message
                for message in self._messages_by_node.of_node(node_id).values()
                if not message.metadata.delivered_at
            ][:limit]
            for message in messages:
                message.metadata.delivered_at = datetime.now(UTC).isoformat()
        for message in messages:
            self._files.write("delivered", message.metadata.message_id, b"")
        return messages

    def delete_messages(self, message_ins_ids: set[str]) -> None:
        """Delete messages and their replies: after delivery of the reply, at the end of a run, or when invalid.

        The files of a reply whose content is still there stay until the ServerApp confirms it.
        """
        with self.lock:
            for message_id in message_ins_ids:
                self._redeliveries.pop(message_id, None)
                reply_id = self.message_ins_id_to_message_res_id.get(message_id)
                if reply_id is not None and reply_id in self._objects:
                    self._message_of_delivered[reply_id] = message_id
                else:
                    self._remove_files(message_id, reply_id)
            super().delete_messages(message_ins_ids)

    def store_object(self, run_id: int, session_id: str, object_id: str, object_content: bytes) -> bool:
        """Store an object that a push session waits for, and return whether it is stored.

        An object that is there already counts as stored: the answer to the first push may have been lost in a crash.
        Sessions of a crashed process are unknown; without a session id, Flower looks for one that waits for the object.
        """
        if self._objects.has(object_id):
            return True
        if session_id not in self._object_push_sessions:
            session_id = ""
        return super().store_object(run_id, session_id, object_id, object_content)

    # What the SuperLink asks in addition

    def undelivered(self) -> list[Message]:
        """Return the messages that were not delivered to their nodes yet."""
        with self.lock:
            return [message for message in self.message_ins_store.values() if not message.metadata.delivered_at]

    def replies(self) -> list[Message]:
        """Return the replies that were not deleted yet."""
        with self.lock:
            return list(self.message_res_store.values())

    def runs_waiting_for(self, node_id: int) -> set[int]:
        """Return the ids of the runs that have messages for a node."""
        with self.lock:
            return {message.metadata.run_id for message in self._messages_by_node.of_node(node_id).values()}

    def has_offline_recipient(self, message_ids: set[str]) -> bool:
        """Return whether one of these messages went to a node that is offline: Flower answers it with an error."""
        with self.lock:
            found = [self.message_ins_store[each] for each in message_ids if each in self.message_ins_store]
            nodes = self._database.nodes_by_id()
            recipients = {message.metadata.dst_node_id for message in found}
            return any(nodes[node_id].status == NodeStatus.OFFLINE for node_id in recipients & set(nodes))

    def unanswered(self, node_id: int) -> list[Message]:
        """Return the messages that were delivered to a node and have no complete reply."""
        with self.lock:
            return [
                message
                for message_id, message in self._messages_by_node.of_node(node_id).items()
                if message.metadata.delivered_at
                and not self._is_complete(self.message_ins_id_to_message_res_id.get(message_id))
            ]

    def redeliver(self, message_id: str) -> bool:
        """Have a message delivered once more, and return whether that is possible.

        It is possible while the node has not confirmed the message, so that its content is still here, and at most
        `MAX_REDELIVERIES` times: a node may have a reason to fail each time.
        """
        with self.lock:
            message = self.message_ins_store.get(message_id)
            is_allowed = self._redeliveries[message_id] < MAX_REDELIVERIES
            if message is None or not self._is_complete(message_id) or not is_allowed:
                return False
            self._redeliveries[message_id] += 1
            message.metadata.delivered_at = ""
            self._files.remove("delivered", message_id)
            return True

    def drop_reply(self, message_id: str) -> None:
        """Delete the reply to a message whose objects will never be complete."""
        with self.lock:
            reply_id = self.message_ins_id_to_message_res_id.pop(message_id, None)
            if reply_id is not None:
                self._objects.delete(reply_id)
                self.message_res_store.pop(reply_id, None)

    def missing(self, message_id: str) -> set[str]:
        """Return the ids of a message's objects that have not arrived yet."""
        return self._objects.missing(message_id)

    def restore(self) -> None:
        """Read the messages that an earlier process has left in the files."""
        messages = []
        for name in self._files.names("message"):
            proto = MessageProto.FromString(self._files.read("message", name) or b"")
            messages.append(message_from_proto(proto))
        delivered = set(self._files.names("delivered"))
        messages.sort(key=lambda message: (bool(message.metadata.reply_to_message_id), message.metadata.created_at))
        for message in messages:
            if message.metadata.reply_to_message_id:
                self._restore_reply(message)
            else:
                self._restore_message(message, message.metadata.message_id in delivered)

    def _restore_message(self, message: Message, delivered: bool) -> None:
        message_id = message.metadata.message_id
        if delivered:
            message.metadata.delivered_at = "before"  # any text means that it was delivered
        elif message_id not in self._objects:
            self._remove_files(message_id)  # storing it was interrupted: the ServerApp pushes it again
            return
        self.message_ins_store[message_id] = message
        self._expect_missing_objects(message)

    def _restore_reply(self, reply: Message) -> None:
        reply_id, message_id = reply.metadata.message_id, reply.metadata.reply_to_message_id
        if reply_id not in self._objects or message_id not in self.message_ins_store:
            self._remove_files(reply_id)  # confirmed, or storing it was interrupted: the node pushes it again
            return
        self.message_res_store[reply_id] = reply
        self.message_ins_id_to_message_res_id[message_id] = reply_id
        self._expect_missing_objects(reply)

    def _expect_missing_objects(self, message: Message) -> None:
        """Start a push session for the objects that the sender will push again."""
        message_id = message.metadata.message_id
        if message_id in self._objects and self.missing(message_id):
            session_id = self.start_session(message.metadata.run_id)
            self.preregister_object_tree(self._objects.get_object_tree(message_id), session_id)

    def _is_complete(self, message_id: str | None) -> bool:
        return message_id is not None and message_id in self._objects and not self.missing(message_id)

    def _remove_files(self, *message_ids: str | None) -> None:
        for message_id in message_ids:
            if message_id is not None:
                self._files.remove("message", message_id)
                self._files.remove("delivered", message_id)

    def _on_root_deleted(self, root: str) -> None:
        """Remove the files of a reply that the ServerApp has confirmed, and of its message."""
        if (message_id := self._message_of_delivered.pop(root, None)) is not None:
            self._remove_files(message_id, root)
        elif root in self.message_res_store:
            self._remove_files(root)
