"""A SuperLink whose messages stay in memory while all that must outlive its container is in its database.

With `--database`, Flower writes every message and every object of it to SQLite, through some 165 statements for one
round trip of a message that asks for nothing: 0.2 s of CPU, four times all the rest. What that buys is messages
that outlive the container; but the ServerApp that waits for them is a process of the same container and does not.
So nodes, runs, their logs, contexts and FABs go to the database, messages and objects do not.

They do outlive the SuperLink's process, as the ServerApp does: copies of messages, and the objects themselves, are
files of a spool (docs/decisions/0010-superlink-restarted-in-place.md).
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from types import SimpleNamespace
from typing import Any, ClassVar

from flwr.app import Message
from flwr.common.constant import Status, SubStatus
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.corestate.in_memory_corestate import InMemoryCoreState
from flwr.supercore.inflatable.inflatable_object import get_object_id, iterate_object_tree
from flwr.supercore.object_store import ObjectStore
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.run import Run, RunStatus
from flwr.superlink.federation import FederationManager

from bouquet.flower.message_files import MessageFiles
from bouquet.flower.replacements import replace

MOST_GIVEN = 3  # times that a message is given again
FRESH = 1.0  # seconds for which an answer of the database holds, unless it is changed through here before

# Methods of Flower's in-memory state, which ask no more of it than `LinkState` sets up below.
MESSAGES = (
    "store_message_ins",
    "store_message_res",
    "store_message_and_object_tree",
    "get_message_ins",
    "get_message_res",
    "get_message_ids_from_run_id",
    "delete_messages",
    "num_message_ins",
    "num_message_res",
    "_check_stored_messages",
    "_on_push_session_expired",
)
OBJECTS = (
    "start_session",
    "delete_sessions_in_run",
    "preregister_object_tree",
    "store_object",
    "get_object",
    "_cleanup_push_session",
)

_FLOWER: Any = InMemoryLinkState


class Memo:
    """Answers that hold for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[Hashable, tuple[float, Any]] = {}
        self._generation = 0

    def get(self, key: Hashable, ask: Callable[[], Any]) -> Any:
        """Return the answer under `key`, asked for anew unless it is fresh. None is not kept."""
        now = time.monotonic()
        with self._lock:
            generation = self._generation
            until, answer = self._answers.get(key, (0.0, None))
        if now < until:
            return answer
        answer = ask()
        with self._lock:
            if answer is not None and generation == self._generation:
                self._answers[key] = (now + FRESH, answer)
        return answer

    def clear(self) -> None:
        """Forget all answers, and those that are being asked for."""
        with self._lock:
            self._answers.clear()
            self._generation += 1


class Runs:
    """Runs by id, as far as messages need them."""

    def __init__(self, find: Callable[[int], Run | None]) -> None:
        self._find = find
        self._found: dict[int, SimpleNamespace] = {}

    def __contains__(self, run_id: int) -> bool:
        if run_id not in self._found and (run := self._find(run_id)):
            self._found[run_id] = SimpleNamespace(run=run)  # what messages need of it never changes
        return run_id in self._found

    def __getitem__(self, run_id: int) -> SimpleNamespace:
        if run_id not in self:
            raise KeyError(run_id)
        return self._found[run_id]


class LinkState(SqlLinkState):
    """Flower's database state with messages and objects in memory, and its frequent questions answered from there.

    In the spool, `message/<id>` is a message or a reply without its content, and `delivered/<id>` says that a node
    has been given the message. A reply that the ServerApp was given stays there, and its message with it, until the
    ServerApp has confirmed it: one that a SuperLink took to its grave is given again.
    """

    spool: ClassVar[MessageFiles]

    def __init__(self, database_path: str, federation_manager: FederationManager, object_store: ObjectStore) -> None:
        super().__init__(database_path, federation_manager, object_store)
        self.lock = threading.RLock()
        self.message_ins_store: dict[str, Any] = {}
        self.message_res_store: dict[str, Any] = {}
        self.message_ins_id_to_message_res_id: dict[str, str] = {}
        self._object_push_sessions: dict[str, Any] = {}
        self._object_push_session_by_root: dict[str, str] = {}
        self._lock_object_push_sessions = threading.RLock()
        self.run_ids = Runs(self._find_run)
        self._tasks_memo, self._nodes_memo = Memo(), Memo()
        self._traffic: dict[int, tuple[int, int]] = {}
        self._traffic_due = 0.0
        self._traffic_lock = threading.Lock()
        self._cleaned = 0.0
        self._given: Counter[str] = Counter()  # how often a message was given again
        self._answered: dict[str, str] = {}  # reply that was given to the ServerApp, not confirmed yet -> its message
        if isinstance(object_store, Objects):
            object_store.on_root_deleted = self._root_deleted

    def initialize(self, *args: Any, **options: Any) -> Any:
        """Open the database, and take up what the spool holds."""
        result = super().initialize(*args, **options)
        self._restore()
        return result

    def _find_run(self, run_id: int) -> Run | None:
        runs = self.get_run_info(run_ids=[run_id])
        return runs[0] if runs else None

    @property
    def nodes(self) -> dict[int, Any]:
        """All nodes by id."""
        return dict(self._nodes_memo.get("nodes", lambda: {node.node_id: node for node in self.get_node_info()}))

    def _is_finished_run(self, run_id: int) -> bool:
        return bool(self.get_run_status({run_id})[run_id].status == "finished")

    # Questions asked with every call

    def get_run_status(self, run_ids: set[int]) -> dict[int, RunStatus]:
        """As Flower's; fresh for a second, or until a task of any run changes its status."""
        ask = super().get_run_status
        return dict(self._tasks_memo.get(frozenset(run_ids), lambda: ask(run_ids)))

    def get_task_by_token(self, token: str) -> Task | None:
        """As Flower's; fresh for a second, or until a task changes its status."""
        ask = super().get_task_by_token
        task: Task | None = self._tasks_memo.get(token, lambda: ask(token))
        return task

    def get_node_id_by_public_key(self, public_key: bytes) -> int | None:
        """As Flower's; fresh for a second, or until a node comes or goes."""
        ask = super().get_node_id_by_public_key
        node_id: int | None = self._nodes_memo.get(public_key, lambda: ask(public_key))
        return node_id

    def _cleanup_expired_task_tokens(self) -> None:
        if time.monotonic() - self._cleaned > FRESH:
            self._cleaned = time.monotonic()
            self._tasks_memo.clear()
            super()._cleanup_expired_task_tokens()

    # What changes the answers

    def claim_task(self, task_id: int) -> str | None:
        """As Flower's."""
        token = super().claim_task(task_id)
        self._tasks_memo.clear()
        return token

    def activate_task(self, task_id: int) -> bool:
        """As Flower's."""
        activated = super().activate_task(task_id)
        self._tasks_memo.clear()
        return activated

    def finish_task(self, task_id: int, sub_status: str, details: str) -> bool:
        """As Flower's."""
        finished = super().finish_task(task_id, sub_status, details)
        self._tasks_memo.clear()
        self._write_traffic()
        return finished

    def create_node(self, owner_aid: str, owner_name: str, public_key: bytes, heartbeat_interval: float) -> int:
        """As Flower's."""
        node_id = super().create_node(owner_aid, owner_name, public_key, heartbeat_interval)
        self._nodes_memo.clear()
        return node_id

    def delete_node(self, owner_aid: str, node_id: int) -> None:
        """As Flower's."""
        super().delete_node(owner_aid, node_id)
        self._nodes_memo.clear()

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        """As Flower's."""
        activated = super().activate_node(node_id, heartbeat_interval)
        self._nodes_memo.clear()
        return activated

    def deactivate_node(self, node_id: int) -> bool:
        """As Flower's."""
        deactivated = super().deactivate_node(node_id)
        self._nodes_memo.clear()
        return deactivated

    # Messages: Flower's in-memory state, and a copy in the spool

    def store_message_ins(self, message: Message) -> str | None:
        """As Flower's."""
        return self._store(message, _FLOWER.store_message_ins)

    def store_message_res(self, message: Message) -> str | None:
        """As Flower's."""
        return self._store(message, _FLOWER.store_message_res)

    def _store(self, message: Message, store: Callable[[Any, Message], str | None]) -> str | None:
        with self.lock:
            known = len(self.message_ins_store) + len(self.message_res_store)
            message_id = store(self, message)
            if message_id is not None and len(self.message_ins_store) + len(self.message_res_store) != known:
                self.spool.write("message", message_id, message_to_proto(message).SerializeToString())
        return message_id

    def get_message_ins(self, node_id: int, limit: int | None) -> list[Message]:
        """As Flower's."""
        messages: list[Message] = _FLOWER.get_message_ins(self, node_id, limit)
        for message in messages:
            self.spool.write("delivered", message.metadata.message_id, b"")
        return messages

    def delete_messages(self, message_ins_ids: set[str]) -> None:
        """As Flower's."""
        with self.lock:
            for message_id in message_ins_ids:
                self._given.pop(message_id, None)
                reply_id = self.message_ins_id_to_message_res_id.get(message_id)
                if reply_id is not None and reply_id in self.object_store:
                    self._answered[reply_id] = message_id
                else:
                    self._remove(message_id, reply_id)
            _FLOWER.delete_messages(self, message_ins_ids)

    def store_object(self, run_id: int, session_id: str, object_id: str, object_content: bytes) -> bool:
        """As Flower's; right, too, when the answer to the first try was lost with the SuperLink that was to give it."""
        if isinstance(self.object_store, Objects) and self.object_store.has(object_id):
            return True
        if session_id not in self._object_push_sessions:
            session_id = ""  # of before: Flower looks for one that waits for the object
        return bool(_FLOWER.store_object(self, run_id, session_id, object_id, object_content))

    def unanswered(self, node_id: int) -> list[Message]:
        """Messages that the node has been given, and to which no reply is complete."""
        with self.lock:
            return [
                message
                for message_id, message in self.message_ins_store.items()
                if message.metadata.dst_node_id == node_id
                and message.metadata.delivered_at
                and not self._is_complete(self.message_ins_id_to_message_res_id.get(message_id))
            ]

    def redeliver(self, message_id: str) -> bool:
        """Have a message given once more, if its content is still here: if the node never confirmed it.

        Not without end: a node may have a reason to fail with it each time.
        """
        with self.lock:
            message = self.message_ins_store.get(message_id)
            if message is None or not self._is_complete(message_id) or self._given[message_id] == MOST_GIVEN:
                return False
            self._given[message_id] += 1
            message.metadata.delivered_at = ""
            self.spool.remove("delivered", message_id)
            return True

    def drop_reply(self, message_id: str) -> None:
        """Forget a reply that will never be complete."""
        with self.lock:
            reply_id = self.message_ins_id_to_message_res_id.pop(message_id, None)
            if reply_id is not None:
                self.object_store.delete(reply_id)
                self.message_res_store.pop(reply_id, None)

    def missing(self, root: str) -> set[str]:
        """Objects of a message that have not come yet."""
        objects = self.object_store
        assert isinstance(objects, Objects)  # noqa: S101
        tree = iterate_object_tree(objects.get_object_tree(root))
        return {node.object_id for node in tree if not objects.has(node.object_id)}

    def fail_running_tasks(self, reason: str) -> None:
        """End the tasks whose processes are gone with a container that was restarted."""
        for task in self.get_tasks(statuses=[Status.RUNNING]):
            self.finish_task(task.task_id, SubStatus.FAILED, reason)

    def _is_complete(self, root: str | None) -> bool:
        return root is not None and root in self.object_store and not self.missing(root)

    def _remove(self, *message_ids: str | None) -> None:
        for message_id in message_ids:
            if message_id is not None:
                self.spool.remove("message", message_id)
                self.spool.remove("delivered", message_id)

    def _root_deleted(self, root: str) -> None:
        """Remove the copies of a reply that the ServerApp has, and of the message that it answers."""
        if (message_id := self._answered.pop(root, None)) is not None:
            self._remove(message_id, root)
        elif root in self.message_res_store:
            self._remove(root)

    def _restore(self) -> None:
        messages = []
        for name in self.spool.names("message"):
            proto = MessageProto.FromString(self.spool.read("message", name) or b"")
            messages.append(message_from_proto(proto))
        delivered = set(self.spool.names("delivered"))
        messages.sort(key=lambda message: (bool(message.metadata.reply_to_message_id), message.metadata.created_at))
        for message in messages:
            message_id, replied_to = message.metadata.message_id, message.metadata.reply_to_message_id
            if replied_to:
                if message_id not in self.object_store or replied_to not in self.message_ins_store:
                    self._remove(message_id)  # confirmed, or not taken in completely: the node pushes it again
                    continue
                self.message_res_store[message_id] = message
                self.message_ins_id_to_message_res_id[replied_to] = message_id
            elif message_id in delivered:
                message.metadata.delivered_at = "before"  # what counts is that there is something
                self.message_ins_store[message_id] = message
            elif message_id not in self.object_store:
                self._remove(message_id)  # not taken in completely: the ServerApp pushes it again
                continue
            else:
                self.message_ins_store[message_id] = message
            if message_id in self.object_store and self.missing(message_id):
                session_id = self.start_session(message.metadata.run_id)
                self.preregister_object_tree(self.object_store.get_object_tree(message_id), session_id)

    # Bytes sent and received, counted with every object

    def store_traffic(self, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
        """Count, and write the counts about once a second."""
        with self._traffic_lock:
            sent, received = self._traffic.get(run_id, (0, 0))
            self._traffic[run_id] = (sent + bytes_sent, received + bytes_recv)
            if time.monotonic() < self._traffic_due:
                return
            self._traffic_due = time.monotonic() + FRESH
        self._write_traffic()

    def _write_traffic(self) -> None:
        with self._traffic_lock:
            traffic, self._traffic = self._traffic, {}
        for run_id, (sent, received) in traffic.items():
            super().store_traffic(run_id, bytes_sent=sent, bytes_recv=received)


for _names, _source in ((MESSAGES, InMemoryLinkState), (OBJECTS, InMemoryCoreState)):
    for _name in _names:
        if _name not in vars(LinkState):
            setattr(LinkState, _name, getattr(_source, _name))


class Objects(InMemoryObjectStore):
    """Objects as files, and in memory which there are, whatever the database.

    In the spool, `object/<id>` is an object, `tree/<id>` what a message consists of and which run it belongs to.
    """

    spool: ClassVar[MessageFiles]

    def __init__(self, database: str) -> None:
        super().__init__()
        self.on_root_deleted: Callable[[str], None] = lambda root: None
        self._roots: set[str] = set()

    def initialize(self) -> None:
        """Take up what the spool holds."""
        for root in self.spool.names("tree"):
            record = json.loads(self.spool.read("tree", root) or b"")
            self._roots.add(root)
            super().preregister(record["run"], ObjectTree.FromString(bytes.fromhex(record["tree"])))
        for object_id in self.spool.names("object"):
            content = self.spool.read("object", object_id) or b""
            if object_id in self.store and get_object_id(content) == object_id:
                self.store[object_id].is_available = True
            else:
                self.spool.remove("object", object_id)

    def has(self, object_id: str) -> bool:
        """Whether an object has come."""
        entry = self.store.get(object_id)
        return entry is not None and entry.is_available

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """As Flower's."""
        with self.lock_store:
            missing = super().preregister(run_id, object_tree)
            if object_tree.object_id not in self._roots:
                self._roots.add(object_tree.object_id)
                record = {"run": run_id, "tree": object_tree.SerializeToString().hex()}
                self.spool.write("tree", object_tree.object_id, json.dumps(record).encode())
        return missing

    def put(self, object_id: str, object_content: bytes) -> None:
        """As Flower's."""
        if self.has(object_id):
            return
        super().put(object_id, object_content)
        with self.lock_store:
            if entry := self.store.get(object_id):
                try:
                    self.spool.write("object", object_id, object_content)
                except OSError:
                    entry.is_available = False
                    raise
                finally:
                    entry.content = b""

    def get(self, object_id: str) -> bytes | None:
        """As Flower's."""
        with self.lock_store:
            return self.spool.read("object", object_id) if self.has(object_id) else super().get(object_id)

    def delete(self, object_id: str) -> None:
        """As Flower's."""
        with self.lock_store:
            if object_id not in self.store:
                return
            super().delete(object_id)
            if object_id in self.store:  # something else needs it
                return
            self.spool.remove("object", object_id)
            is_root = object_id in self._roots
            if is_root:
                self._roots.remove(object_id)
                self.spool.remove("tree", object_id)
        if is_root:
            self.on_root_deleted(object_id)


def install(spool: MessageFiles) -> None:
    """Keep messages and objects in memory and in the spool when Flower is told to use a database."""
    LinkState.spool = Objects.spool = spool
    replace("flwr.server.superlink.linkstate.linkstate_factory", "SqlLinkState", LinkState)
    replace("flwr.supercore.object_store.object_store_factory", "SqlObjectStore", Objects)
