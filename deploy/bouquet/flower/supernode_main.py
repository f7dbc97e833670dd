"""Flower's SuperNode with its sleeps turned into waits for events.

Against a SuperLink of ours, which holds an empty pull, the next pull follows at once. Against a stock SuperLink,
which answers an empty pull at once, the pace is the stock one: a pull every 3 s.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import INFO
from types import SimpleNamespace
from typing import Any, ClassVar

import grpc
from flwr.common.logger import log
from flwr.proto import message_pb2, runtime_pb2
from flwr.supercore.exit import add_exit_handler
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.retry import exponential
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.servicer.runtime.runtime_servicer import SuperNodeRuntimeServicer

from bouquet.flower import signatures
from bouquet.flower.channels import without_watch
from bouquet.flower.holding import HoldClientInterceptor, hold, holding, requested_hold
from bouquet.flower.notifier import KeyedListener, KeyedNotifier
from bouquet.flower.replacements import check_version, replace

TASK_HOLD = 20.0  # seconds: PullPendingTasks with no task
RUN_HOLD = 20.0  # seconds: our SuperLink's answer to "is the run still running?"
RUN_PACE = 5.0  # seconds: the same question put to a stock SuperLink
BEAT_PAUSE = 3  # seconds at most between a heartbeat that failed and the next
UNANSWERED = 45.0  # seconds without an answered heartbeat: two of them, 15 s before the SuperLink gives the node up
OBJECTS_PATIENCE = 10.0  # seconds for the objects of a reply that the SuperLink has refused
HELD = 1.0  # seconds: an empty answer that took longer was held

TASKS, REPLIES = "tasks", "replies"


class Node:
    """What the parts of one SuperNode tell each other, its executor and its owner.

    `on_online` is called with the node id at each heartbeat that the SuperLink has acknowledged, the first one
    right after registration; `on_offline` with the reason at each that it has not; `on_run_ended` with the id of
    a run that has ended, whatever ended it.
    """

    def __init__(
        self,
        on_online: Callable[[int], None] = lambda node_id: None,
        on_offline: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.bell = KeyedNotifier()
        self.receiving = False  # a message has come, its objects have not
        self.pulled_for = 0.0  # seconds that the last empty pull took
        self.watched: set[int] = set()
        self.tasks = KeyedListener(self.bell, TASKS)  # for the executor
        self._replies = KeyedListener(self.bell, REPLIES)
        self.on_online = on_online
        self.on_offline = on_offline
        self.on_run_ended: Callable[[int], None] = lambda run_id: None
        self.node_id = 0
        self.message_id = ""  # of the message that has come last
        self._working = False  # from a message that has come until its reply is sent
        self._leaving = ""
        self._changes: dict[str, int] = {}  # to the node config

    # Its place in the fleet

    def resize(self, supernodes: int) -> None:
        """Have runs that begin from now on see that many partitions; one that has begun keeps its number."""
        self._changes["num-partitions"] = supernodes

    def leave(self, reason: str) -> None:
        """End as on SIGTERM, after the message that is being worked on."""
        self._leaving = reason
        if not self._working:
            self._end()

    def next_message(self, pull_and_store: Callable[..., int | None], node_config: dict[str, Any], **rest: Any) -> Any:
        """Stand in for one turn of Flower's main loop: the message before has been answered by now."""
        self._working = False
        if self._leaving:
            self._end()
        # A copy: Flower keeps what it is given here as the node config of a run that begins.
        return pull_and_store(node_config=node_config | self._changes, **rest)

    def _end(self) -> None:
        log(INFO, "Starting over: %s", self._leaving)
        os.kill(os.getpid(), signal.SIGTERM)

    # The clock of Flower's main loop

    def sleep(self, seconds: float) -> None:
        """Stand in for `time.sleep`: 3 s after an empty pull, 0.5 s for a reply or an object of it."""
        if seconds < HELD:
            self._replies.wait(seconds)
        elif self.pulled_for < HELD:
            time.sleep(seconds)

    # The connection to the SuperLink

    def receive(self, pull: Callable[[], Any]) -> Any:
        """Pull a message; until it is confirmed, nobody may start on its task."""
        self.receiving = False
        start = time.monotonic()
        received = pull()
        self.pulled_for = 0.0 if received else time.monotonic() - start
        self.receiving = self._working = received is not None
        if received:
            self.message_id = received[0].metadata.message_id
        return received

    def confirm(self, confirm: Callable[[int, str], None], run_id: int, object_id: str) -> None:
        """Confirm a message that is all there, and wake the executor."""
        confirm(run_id, object_id)
        self.receiving = False
        self.bell.notify(TASKS)

    def push_replies(self, push: Callable[..., None], *, state: Any, object_store: Any, send: Any, **rest: Any) -> None:
        """Push the reply to the message that has come last, and nothing else.

        Flower forgets a reply that the SuperLink refuses, while the ClientApp may still be handing over its objects.
        That would fail, the ClientApp would reply anew, and the node take that for the reply to its next message.
        """

        def send_whole(message: Any, tree: Any, runtime: float) -> tuple[set[str], str]:
            object_ids: set[str] = set()
            try:
                object_ids, session_id = send(message, tree, runtime)
            finally:
                if not object_ids:
                    self._wait_for_objects(object_store, tree)
            return object_ids, session_id

        replies = _Replies(state, object_store, self.message_id)
        push(state=replies, object_store=object_store, send=send_whole, **rest)

    def _wait_for_objects(self, object_store: Any, tree: message_pb2.ObjectTree) -> None:
        given_up = time.monotonic() + OBJECTS_PATIENCE
        while any(object_store.get(part.object_id) == b"" for part in iterate_object_tree(tree)):
            if time.monotonic() > given_up:
                return
            self._replies.wait(0.1)

    def watch_run(self, get_run: Callable[[int], Any], run_id: int) -> Any:
        """Get a run, and from then on tell when it has ended."""
        run = get_run(run_id)
        if run_id not in self.watched:
            self.watched.add(run_id)
            threading.Thread(target=self._watch_run, args=(get_run, run_id), daemon=True).start()
        return run

    def _watch_run(self, get_run: Callable[[int], Any], run_id: int) -> None:
        try:
            while True:
                start = time.monotonic()
                with holding(RUN_HOLD):
                    get_run(run_id)
                if time.monotonic() - start < HELD:
                    time.sleep(RUN_PACE)
        except (RunNotRunningException, grpc.RpcError):
            self.on_run_ended(run_id)
        finally:
            self.watched.discard(run_id)


class _Replies:
    """A node's state in which the replies to one message are all that there are: others are dropped."""

    def __init__(self, state: Any, object_store: Any, message_id: str) -> None:
        self._state = state
        self._object_store = object_store
        self._message_id = message_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def get_messages(self, **which: Any) -> list[Any]:
        """As Flower's."""
        wanted = []
        for message in self._state.get_messages(**which):
            if message.metadata.reply_to_message_id == self._message_id:
                wanted.append(message)
            else:
                self._state.delete_messages(message_ids=[message.metadata.message_id])
                self._object_store.delete(message.metadata.message_id)
        return wanted


class Runtime(SuperNodeRuntimeServicer):
    """The Runtime API: what ClientApp processes and executors call."""

    node: ClassVar[Node]

    def PullPendingTasks(
        self, request: runtime_pb2.PullPendingTasksRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PullPendingTasksResponse:
        """Answer once a task is pending whose message is all there."""
        response = runtime_pb2.PullPendingTasksResponse()

        def ready() -> bool:
            nonlocal response
            if not self.node.receiving:
                response = super(Runtime, self).PullPendingTasks(request, context)
            return bool(response.tasks)

        hold(self.node.bell, TASKS, ready, requested_hold(context, TASK_HOLD, default=TASK_HOLD), context)
        return response

    def PushMessages(
        self, request: runtime_pb2.PushAppMessagesRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PushAppMessagesResponse:
        """Wake the main loop for a reply."""
        response = super().PushMessages(request, context)
        self.node.bell.notify(REPLIES)
        return response

    def PushObject(
        self, request: message_pb2.PushObjectRequest, context: grpc.ServicerContext
    ) -> message_pb2.PushObjectResponse:
        """Wake the main loop for an object of a reply."""
        response = super().PushObject(request, context)
        self.node.bell.notify(REPLIES)
        return response


class Heartbeat(HeartbeatSender):
    """Tells whether the SuperLink counts the node as online, and outlives an error of the SuperLink.

    Flower's own thread ends for good at the first answer that is neither success nor 'unavailable', such as
    INTERNAL from a full disk: the node would look healthy and be offline until restarted. And it says nothing while
    it repeats a heartbeat that is not answered, up to 20 s apart.
    """

    node: ClassVar[Node]

    def __init__(self, heartbeat_fn: Callable[[], bool]) -> None:
        super().__init__(lambda: self._beat(heartbeat_fn))
        self._retry_invoker.wait_gen_factory = lambda: exponential(max_delay=BEAT_PAUSE)
        self._answered = time.monotonic()

    def _beat(self, heartbeat_fn: Callable[[], bool]) -> bool:
        try:
            if heartbeat_fn():
                self._answered = time.monotonic()
                if self.node.node_id:  # the first heartbeat is ahead of it
                    self.node.on_online(self.node.node_id)
                return True
            if time.monotonic() - self._answered > UNANSWERED:
                self.node.on_offline("the SuperLink does not answer heartbeats")
        except grpc.RpcError as error:
            self.node.on_offline(f"heartbeat failed: {error.code().name}: {error.details()}")
        except RuntimeError as error:
            self.node.on_offline(str(error))
            raise
        return False


def install(node: Node) -> None:
    """Put the pieces above in the place of Flower's own."""
    check_version()
    Runtime.node = Heartbeat.node = node
    signatures.sign_once_a_second()
    replace("flwr.supernode.servicer.runtime.runtime_grpc", "SuperNodeRuntimeServicer", Runtime)
    replace("flwr.client.grpc_rere_client.connection", "HeartbeatSender", Heartbeat)
    replace("flwr.supernode.start_client_internal", "time", SimpleNamespace(sleep=node.sleep))

    def push_messages(**arguments: Any) -> None:
        node.push_replies(stock_push_messages, **arguments)

    stock_push_messages = replace("flwr.supernode.start_client_internal", "_push_messages", push_messages)

    def pull_and_store(**arguments: Any) -> Any:
        return node.next_message(stock_pull_and_store, **arguments)

    stock_pull_and_store = replace("flwr.supernode.start_client_internal", "_pull_and_store_message", pull_and_store)

    def create_channel(*, interceptors: list[Any], **options: Any) -> grpc.Channel:
        return without_watch(stock_create_channel(interceptors=[*interceptors, HoldClientInterceptor()], **options))

    stock_create_channel = replace("flwr.client.grpc_rere_client.connection", "create_channel", create_channel)

    def wrap_stub(stub: Any, retry_invoker: Any) -> None:
        beat = stub.SendNodeHeartbeat  # Heartbeat repeats it
        stock_wrap_stub(stub, retry_invoker)
        stub.SendNodeHeartbeat = beat

    stock_wrap_stub = replace("flwr.client.grpc_rere_client.connection", "wrap_stub", wrap_stub)

    @contextmanager
    def init_connection(*args: Any, **options: Any) -> Iterator[tuple[Any, ...]]:
        with stock_init_connection(*args, **options) as (node_id, receive, send, get_run, *rest, confirm):
            node.node_id = node_id
            node.on_online(node_id)
            yield (
                node_id,
                lambda: node.receive(receive),
                send,
                lambda run_id: node.watch_run(get_run, run_id),
                *rest,
                lambda run_id, object_id: node.confirm(confirm, run_id, object_id),
            )

    stock_init_connection = replace("flwr.supernode.start_client_internal", "_init_connection", init_connection)


def run_supernode(node: Node) -> None:
    """Run `flower-supernode` with the arguments of `sys.argv`; returns when Flower gives up on the SuperLink."""
    install(node)
    add_exit_handler(node.bell.close)  # a held call would keep its thread, and with it the process, for seconds
    flower_supernode()
