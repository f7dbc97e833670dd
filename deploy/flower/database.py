"""A SuperLink whose messages stay in memory while all that must outlive it is in its database.

With `--database`, Flower writes every message and every object of it to SQLite, through some 165 statements for one
round trip of a message that asks for nothing: 0.2 s of CPU, four times all the rest. What that buys is messages
that outlive the SuperLink; but the ServerApp that waits for them is a process of the same container and does not.
So nodes, runs, their logs, contexts and FABs go to the database, messages and objects do not.
"""

import threading
import time
from collections.abc import Callable, Hashable
from types import SimpleNamespace
from typing import Any

from flwr.proto.task_pb2 import Task
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.corestate.in_memory_corestate import InMemoryCoreState
from flwr.supercore.object_store import ObjectStore
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.run import Run, RunStatus
from flwr.superlink.federation import FederationManager

from .patching import replace

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
    """Flower's database state with messages and objects in memory, and its frequent questions answered from there."""

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
        setattr(LinkState, _name, getattr(_source, _name))


class Objects(InMemoryObjectStore):
    """Objects in memory, whatever the database."""

    def __init__(self, database: str) -> None:
        super().__init__()

    def initialize(self) -> None:
        """Nothing to do."""


def install() -> None:
    """Keep messages and objects in memory when Flower is told to use a database."""
    replace("flwr.server.superlink.linkstate.linkstate_factory", "SqlLinkState", LinkState)
    replace("flwr.supercore.object_store.object_store_factory", "SqlObjectStore", Objects)
