"""The SuperLink's state: runs and nodes in a database, messages in memory.

Nodes, runs, their logs, contexts and apps outlive the container in the database. Messages and objects outlive only the
SuperLink's process, in files (`MessageState`, `ObjectFiles`).
"""

import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from logging import WARNING
from typing import Any

from flwr.app import Message
from flwr.common.constant import Status, SubStatus
from flwr.common.logger import log
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.constant import NodeStatus
from flwr.supercore.run import Run, RunStatus
from flwr.supercore.state.schema.corestate_models import Task as TaskModel
from flwr.supercore.state.schema.corestate_models import TaskLogsTable
from flwr.supercore.state.schema.linkstate_models import Node as NodeModel
from flwr.supercore.utils import uint64_to_int64
from flwr.superlink.federation import FederationManager
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from bouquet.flower.message_files import MessageFiles
from bouquet.flower.message_state import MessageState
from bouquet.flower.migrations import allow_any_path
from bouquet.flower.object_files import ObjectFiles, ObjectFilesFactory
from bouquet.runtime.steady_clock import Deadlines, SteadyClock, process_clock

FRESH_SECONDS = 1.0  # an answer of the database is valid for so long, unless this process changes it earlier
LOG_STEP_SECONDS = 1e-5  # between two lines of a log; readers skip 1e-6


class AnswerCache:
    """Answers of the database that are valid for some time.

    Args:
        seconds: For how long; `math.inf`: until they are cleared.
    """

    def __init__(self, seconds: float = FRESH_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._asking = threading.RLock()
        self._answers: dict[Hashable, tuple[float, Any]] = {}
        self._generation = 0

    def get(self, key: Hashable, ask: Callable[[], Any]) -> Any:
        """Return the valid answer for `key`, or ask for a new one. None is never kept.

        One thread asks, and the others wait for its answer: a thousand nodes may call at the same time.
        """
        if (answer := self._valid(key)) is not None:
            return answer
        with self._asking:
            if (answer := self._valid(key)) is not None:
                return answer
            generation, now = self._generation, time.monotonic()
            answer = ask()
            with self._lock:
                if answer is not None and generation == self._generation:
                    self._answers[key] = (now + self._seconds, answer)
            return answer

    def _valid(self, key: Hashable) -> Any:
        with self._lock:
            until, answer = self._answers.get(key, (0.0, None))
        return answer if time.monotonic() < until else None

    def clear(self) -> None:
        """Forget all answers, and do not keep those that are being asked for."""
        with self._lock:
            self._answers.clear()
            self._generation += 1


@dataclass
class RunUsage:
    """What a run has used since it was last written to the database."""

    bytes_sent: int = 0
    bytes_recv: int = 0
    clientapp_seconds: float = 0.0


class LinkState(SqlLinkState):
    """Flower's database state, which passes messages and objects on to a `MessageState` and caches frequent answers.

    Attributes:
        messages: The messages and their objects.
    """

    def __init__(
        self,
        database_path: str,
        federation_manager: FederationManager,
        objects: ObjectFiles,
        files: MessageFiles,
        clock: SteadyClock | None = None,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        # Both register with the federation manager, which asks for runs and nodes: the database must be the last.
        self.messages = MessageState(self, federation_manager, objects, files)
        super().__init__(database_path, federation_manager, objects)
        self._task_answers, self._node_answers = AnswerCache(), AnswerCache()
        self._node_ids = AnswerCache(math.inf)  # by public key
        self._usage: dict[int, RunUsage] = {}
        self._usage_due = 0.0
        self._usage_lock = threading.Lock()
        self._tokens_cleaned = 0.0
        self._wall_time = wall_time
        self._log_lock = threading.Lock()
        self._log_time = 0.0
        self._deadlines = Deadlines(clock or process_clock())

    def initialize(self, *args: Any, **options: Any) -> Any:
        """Open the database, and read the messages that an earlier process has left."""
        allow_any_path()
        result = super().initialize(*args, **options)
        self.messages.restore()
        return result

    def fail_running_tasks(self, reason: str) -> None:
        """End the tasks whose processes ended with the previous container."""
        for task in self.get_tasks(statuses=[Status.RUNNING]):
            self.finish_task(task.task_id, SubStatus.FAILED, reason)

    def add_task_log(self, task_id: int, log_message: str) -> None:
        """Add lines to a task's log.

        Readers ask for the lines that are later than the last one, so the time of a line never goes back, even if the
        clock does.
        """
        with self._log_lock:
            self._log_time = max(self._wall_time(), self._log_time + LOG_STEP_SECONDS)
            line = {"timestamp": self._log_time, "task_id": uint64_to_int64(task_id), "log": log_message}
        try:
            with self.session() as session:
                session.execute(insert(TaskLogsTable).values(line))
        except IntegrityError:
            raise ValueError(f"Task {task_id} not found") from None

    # What messages need to know

    def find_run(self, run_id: int) -> Run | None:
        """Return a run, or None if there is no such run."""
        runs = self.get_run_info(run_ids=[run_id])
        return runs[0] if runs else None

    def is_finished(self, run_id: int) -> bool:
        """Return whether a run has ended."""
        return bool(self.get_run_status({run_id})[run_id].status == Status.FINISHED)

    def nodes_by_id(self) -> Mapping[int, NodeInfo]:
        """Return all nodes; valid for `FRESH_SECONDS`, or until a node changes."""
        self._follow_clock()
        nodes: Mapping[int, NodeInfo] = self._node_answers.get(
            "nodes", lambda: {node.node_id: node for node in self.get_node_info()}
        )
        return nodes

    # Flower asks these questions with every call

    def get_run_status(self, run_ids: set[int]) -> dict[int, RunStatus]:
        """Return the status of runs; valid for `FRESH_SECONDS`, or until a task changes its status."""
        ask = super().get_run_status
        return dict(self._task_answers.get(frozenset(run_ids), lambda: ask(run_ids)))

    def get_run_info(self, *, run_ids: Sequence[int] | None = None, **options: Any) -> Sequence[Run]:
        """Return runs; runs that are asked for by their ids are valid as `get_run_status` is."""
        ask = super().get_run_info
        if run_ids is None or options:
            return ask(run_ids=run_ids, **options)
        runs: Sequence[Run] | None = self._task_answers.get(("runs", *run_ids), lambda: ask(run_ids=run_ids) or None)
        return runs or []

    def get_task_by_token(self, token: str) -> Task | None:
        """Return the task that a token belongs to; valid for `FRESH_SECONDS`, or until a task changes its status."""
        self._follow_clock()
        ask = super().get_task_by_token
        task: Task | None = self._task_answers.get(token, lambda: ask(token))
        return task

    def get_node_id_by_public_key(self, public_key: bytes) -> int | None:
        """Return the node that has a key; valid until a node is enrolled or removed."""
        ask = super().get_node_id_by_public_key
        node_id: int | None = self._node_ids.get(public_key, lambda: ask(public_key))
        return node_id

    def _cleanup_expired_task_tokens(self) -> None:
        """Fail the tasks without heartbeats. Flower does so in every query of tasks; here at most once a second."""
        self._follow_clock()
        if time.monotonic() - self._tokens_cleaned > FRESH_SECONDS:
            self._tokens_cleaned = time.monotonic()
            self._task_answers.clear()
            super()._cleanup_expired_task_tokens()

    def _check_and_tag_offline_nodes(self, node_ids: list[int] | None = None) -> None:
        """Mark the nodes without heartbeats as offline."""
        self._follow_clock()
        super()._check_and_tag_offline_nodes(node_ids)

    def acknowledge_node_heartbeat(self, node_id: int, heartbeat_interval: float) -> bool:
        """Keep a node online, and return whether it is known."""
        self._follow_clock()
        return bool(super().acknowledge_node_heartbeat(node_id, heartbeat_interval))

    def _follow_clock(self) -> None:
        """Move the deadlines of nodes and tasks if the wall clock has jumped; see `steady_clock`."""
        self._deadlines.shift(self._move_deadlines)

    def _move_deadlines(self, seconds: float) -> None:
        log(WARNING, "The clock jumped by %.0f s: deadlines of nodes and tasks move along", seconds)
        with self.session() as session:
            session.execute(
                update(NodeModel)
                .where(NodeModel.status == NodeStatus.ONLINE)
                .values(online_until=NodeModel.online_until + seconds)
            )
            for task in session.scalars(select(TaskModel).where(TaskModel.active_until.is_not(None))):
                if task.active_until is not None:
                    task.active_until = task.active_until + timedelta(seconds=seconds)
        self._node_answers.clear()
        self._task_answers.clear()

    def is_responsive(self) -> bool:
        """Return True once database and messages answer; waits for ever if a thread has deadlocked."""
        self.nodes_by_id()
        self.messages.num_message_ins()
        return True

    # Flower's methods that change those answers

    def claim_task(self, task_id: int) -> str | None:
        """Give a pending task to an executor, and return the token for it; None if it is not pending."""
        token = super().claim_task(task_id)
        self._task_answers.clear()
        return token

    def activate_task(self, task_id: int) -> bool:
        """Mark a claimed task as running."""
        activated = super().activate_task(task_id)
        self._task_answers.clear()
        return activated

    def finish_task(self, task_id: int, sub_status: str, details: str) -> bool:
        """Mark a task as finished, and write the usage of its run."""
        finished = super().finish_task(task_id, sub_status, details)
        self._write_usage()
        self._task_answers.clear()
        return finished

    def create_node(self, owner_aid: str, owner_name: str, public_key: bytes, heartbeat_interval: float) -> int:
        """Enrol a node by its key, and return its id."""
        node_id = super().create_node(owner_aid, owner_name, public_key, heartbeat_interval)
        self._node_answers.clear()
        self._node_ids.clear()
        return node_id

    def delete_node(self, owner_aid: str, node_id: int) -> None:
        """Remove a node."""
        super().delete_node(owner_aid, node_id)
        self._node_answers.clear()
        self._node_ids.clear()

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        """Mark a node as online."""
        activated = super().activate_node(node_id, heartbeat_interval)
        self._node_answers.clear()
        return activated

    def deactivate_node(self, node_id: int) -> bool:
        """Mark a node as offline, and return whether it was online."""
        deactivated = super().deactivate_node(node_id)
        self._node_answers.clear()
        return deactivated

    # Messages and objects. The database's methods for them are never called.

    def store_message_ins(self, message: Message) -> str | None:
        """Store a message from the ServerApp; see `MessageState`."""
        return self.messages.store_message_ins(message)

    def store_message_res(self, message: Message) -> str | None:
        """Store a reply; see `MessageState`."""
        return self.messages.store_message_res(message)

    def store_message_and_object_tree(
        self, message: Message, object_tree: ObjectTree, session_id: str
    ) -> tuple[bool, list[str]]:
        """Store a message or a reply, and return whether it is valid and which of its objects are missing."""
        return self.messages.store_message_and_object_tree(message, object_tree, session_id)

    def get_message_ins(self, node_id: int, limit: int | None) -> list[Message]:
        """Deliver messages to a node; see `MessageState`."""
        return self.messages.get_message_ins(node_id, limit)

    def get_message_res(self, message_ids: set[str]) -> list[Message]:
        """Deliver the replies to messages to the ServerApp, with an error for each that will get no reply."""
        return self.messages.get_message_res(message_ids)

    def get_message_ids_from_run_id(self, run_id: int) -> set[str]:
        """Return the ids of a run's messages, without replies."""
        return self.messages.get_message_ids_from_run_id(run_id)

    def delete_messages(self, message_ins_ids: set[str]) -> None:
        """Delete messages and their replies; see `MessageState`."""
        self.messages.delete_messages(message_ins_ids)

    def num_message_ins(self) -> int:
        """Return the number of messages, without replies."""
        return self.messages.num_message_ins()

    def num_message_res(self) -> int:
        """Return the number of replies."""
        return self.messages.num_message_res()

    def start_session(self, run_id: int) -> str:
        """Start a push session, and return its id."""
        return self.messages.start_session(run_id)

    def delete_sessions_in_run(self, run_id: int) -> None:
        """Forget the push sessions of a run."""
        self.messages.delete_sessions_in_run(run_id)

    def preregister_object_tree(self, object_tree: ObjectTree, session_id: str) -> list[str]:
        """Announce a message's objects in a push session, and return the ids of those that are missing."""
        return self.messages.preregister_object_tree(object_tree, session_id)

    def store_object(self, run_id: int, session_id: str, object_id: str, object_content: bytes) -> bool:
        """Store an object; see `MessageState`."""
        return self.messages.store_object(run_id, session_id, object_id, object_content)

    def get_object(self, run_id: int, object_id: str) -> bytes | None:
        """Return an object's bytes, empty while it is missing, or None if it is unknown."""
        return self.messages.get_object(run_id, object_id)

    # What Flower counts with every object and reply: bytes of a run, and seconds of its ClientApps

    def store_traffic(self, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
        """Count bytes of a run, and write the counts about once a second."""
        self._count(run_id, bytes_sent, bytes_recv, 0.0)

    def add_clientapp_runtime(self, run_id: int, runtime: float) -> None:
        """Count seconds of a run's ClientApps, and write the counts about once a second."""
        self._count(run_id, 0, 0, runtime)

    def _count(self, run_id: int, bytes_sent: int, bytes_recv: int, seconds: float) -> None:
        with self._usage_lock:
            usage = self._usage.setdefault(run_id, RunUsage())
            usage.bytes_sent += bytes_sent
            usage.bytes_recv += bytes_recv
            usage.clientapp_seconds += seconds
            if time.monotonic() < self._usage_due:
                return
            self._usage_due = time.monotonic() + FRESH_SECONDS
        self._write_usage()

    def _write_usage(self) -> None:
        with self._usage_lock:
            usages, self._usage = self._usage, {}
        for run_id, usage in usages.items():
            super().store_traffic(run_id, bytes_sent=usage.bytes_sent, bytes_recv=usage.bytes_recv)
            if usage.clientapp_seconds:
                super().add_clientapp_runtime(run_id, usage.clientapp_seconds)


class StateFactory(LinkStateFactory):
    """Creates the SuperLink's one `LinkState` on first use. Flower's servicers ask a factory for the state."""

    def __init__(
        self, database: str, federation_manager: FederationManager, objects: ObjectFilesFactory, files: MessageFiles
    ) -> None:
        super().__init__(database, federation_manager, objects)
        self.state_instance: LinkState | None = None
        self._objects = objects
        self._files = files

    def state(self) -> LinkState:
        """Return the state; opens the database, and reads what an earlier process has left, if necessary."""
        if self.state_instance is not None:
            return self.state_instance
        with self._state_lock:
            if self.state_instance is None:
                state = LinkState(self.database, self.federation_manager, self._objects.store(), self._files)
                state.initialize()
                self.state_instance = state
            return self.state_instance
