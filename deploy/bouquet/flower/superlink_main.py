"""Flower's SuperLink with calls held until there is something to answer, and that knows soon who has gone.

The servicers below take the place of Flower's own in the modules that start the three APIs; each method does what
Flower's does and either rings a bell after it, or holds before it.

A SuperNode does one thing after the other: when it asks for a message, it has none in hand. What it had been given
and has not answered was lost with a process or a connection: it is given again if the node never confirmed that it
had come, and otherwise answered for.
"""

import threading
import time
from collections.abc import Callable, Hashable
from logging import INFO, WARNING
from typing import ClassVar

import grpc
from flwr.app import Error, Message
from flwr.common.constant import LOG_STREAM_INTERVAL, PUBLIC_KEY_HEADER, ErrorCode
from flwr.common.logger import log
from flwr.proto import control_pb2, fleet_pb2, heartbeat_pb2, log_pb2, message_pb2, run_pb2, runtime_pb2
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.supercore.constant import OBJECT_PUSH_SESSION_TTL_SECONDS, NodeStatus
from flwr.supercore.exit import add_exit_handler
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.interceptors import get_authenticated_task
from flwr.supercore.utils import get_metadata_bytes
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, flower_superlink
from flwr.superlink.servicer.control.control_servicer import ControlServicer
from flwr.superlink.servicer.runtime.runtime_servicer import SuperLinkRuntimeServicer

from bouquet.flower import auth_log as refusal
from bouquet.flower import link_state as database
from bouquet.flower import signatures
from bouquet.flower.delivery_tracker import DeliveryTracker
from bouquet.flower.holding import hold, requested_hold
from bouquet.flower.liveness import Liveness
from bouquet.flower.message_files import MessageFiles
from bouquet.flower.notifier import KeyedListener, KeyedNotifier
from bouquet.flower.replacements import check_version, replace

NODE_HOLD = 20.0  # seconds: a SuperNode's PullMessages with nothing for it
RUN_HOLD = 20.0  # seconds: a SuperNode's GetRun that waits for the run's end
REPLY_HOLD = 5.0  # seconds: a ServerApp's PullMessages; stock looks every 3 s for nodes gone offline
TASK_HOLD = 5.0  # seconds: PullPendingTasks, which also starts automations that are due

TASKS, LOGS = "tasks", "logs"


def _node(node_id: int) -> Hashable:
    return ("node", node_id)


def _replies(run_id: int) -> Hashable:
    return ("replies", run_id)


def _end(run_id: int) -> Hashable:
    return ("end", run_id)


class SuperLinkEvents:
    """What the three APIs of one SuperLink tell each other, its executor and its owner.

    `on_serving` is called once the Control, Runtime and Fleet APIs accept calls, `on_task` when there is a new task,
    `on_run_ended` with the id of a run that was stopped by a user.
    """

    def __init__(
        self,
        on_serving: Callable[[], None] = lambda: None,
        on_task: Callable[[], None] = lambda: None,
        on_run_ended: Callable[[int], None] = lambda run_id: None,
    ) -> None:
        self.bell = KeyedNotifier()
        self.mail = DeliveryTracker(self.bell, expiry_seconds=OBJECT_PUSH_SESSION_TTL_SECONDS)
        self.presence = Liveness(self.bell)
        self.pulls: dict[int, object] = {}  # the newest PullMessages of each node
        self.offline_count = 0  # of nodes, so far
        self.on_serving = on_serving
        self.on_task = on_task
        self.on_run_ended = on_run_ended

    def add_task(self) -> None:
        """Wake who waits for tasks."""
        self.bell.notify(TASKS)
        self.on_task()

    def restore(self, state: database.LinkState) -> None:
        """Announce what a SuperLink before this one has left."""
        for message in state.message_ins_store.values():
            if not message.metadata.delivered_at:
                message_id = message.metadata.message_id
                self.mail.announce(_node(message.metadata.dst_node_id), message_id, state.missing(message_id))
        for reply in state.message_res_store.values():
            missing = state.missing(reply.metadata.message_id)
            self.mail.announce(_replies(reply.metadata.run_id), reply.metadata.reply_to_message_id, missing)

    def notify_offline(self, state: database.LinkState, node_id: int) -> None:
        """Have those who wait for a node that has gone offline look: Flower answers for it."""
        self.offline_count += 1
        for message in list(state.message_ins_store.values()):
            if message.metadata.dst_node_id == node_id:
                self.bell.notify(_replies(message.metadata.run_id))

    def end_run(self, run_id: int) -> None:
        """Release whoever waits for a run that has ended."""
        self.mail.forget(_replies(run_id))
        self.bell.notify(_replies(run_id))
        self.bell.notify(_end(run_id))
        self.bell.notify(LOGS)


def _missing(tree: message_pb2.ObjectTree, objects_to_push: set[str]) -> set[str]:
    return {node.object_id for node in iterate_object_tree(tree)} & objects_to_push


class Fleet(FleetServicer):
    """The Fleet API: what SuperNodes call."""

    board: ClassVar[SuperLinkEvents]

    def ActivateNode(
        self, request: fleet_pb2.ActivateNodeRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.ActivateNodeResponse:
        """Let a node in that was killed and started anew, while Flower still counts it as online."""
        state = self._state()
        node_id = state.get_node_id_by_public_key(request.public_key)
        # Flower has verified the signature by the key in the metadata, but not that the request is about the same.
        is_holder = get_metadata_bytes(context.invocation_metadata(), PUBLIC_KEY_HEADER) == request.public_key
        if node_id is not None and is_holder and self._is_online(node_id):
            if self.board.presence.answers(node_id):
                log(WARNING, "SuperNode %s is online already: another process with its key is refused", node_id)
            else:
                log(INFO, "SuperNode %s is back: its process before this one has gone", node_id)
                state.deactivate_node(node_id)
        response = super().ActivateNode(request, context)
        self.board.presence.seen(response.node_id)
        return response

    def DeactivateNode(
        self, request: fleet_pb2.DeactivateNodeRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.DeactivateNodeResponse:
        """Have those who wait for the node look."""
        response = super().DeactivateNode(request, context)
        self.board.notify_offline(self._state(), request.node_id)
        return response

    def SendNodeHeartbeat(
        self, request: heartbeat_pb2.SendNodeHeartbeatRequest, context: grpc.ServicerContext
    ) -> heartbeat_pb2.SendNodeHeartbeatResponse:
        """Note a sign of life."""
        self.board.presence.seen(request.node.node_id)
        return super().SendNodeHeartbeat(request, context)

    def PullMessages(
        self, request: fleet_pb2.PullMessagesRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.PullMessagesResponse:
        """Answer once there is a complete message for the node."""
        board, mail, node_id = self.board, self.board.mail, request.node.node_id
        key = _node(node_id)
        board.pulls[node_id] = this = object()
        self._resolve_in_flight(node_id)

        def is_old() -> bool:  # nobody waits for the answer: the node has called again since
            return board.pulls[node_id] is not this

        with board.presence.held(node_id, key, context) as challenged:
            hold(
                board.bell,
                key,
                lambda: challenged() or is_old() or (bool(mail.complete(key)) and not mail.incomplete(key)),
                NODE_HOLD,
                context,
            )
        if is_old() or challenged():
            return fleet_pb2.PullMessagesResponse()
        response = super().PullMessages(request, context)
        handed_out = [message.metadata.message_id for message in response.messages_list]
        mail.forget(key, handed_out or mail.complete(key))
        return response

    def PushMessages(
        self, request: fleet_pb2.PushMessagesRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.PushMessagesResponse:
        """Announce a reply."""
        self.board.presence.seen(request.node.node_id)
        mail = self.board.mail
        replies = [
            (_replies(message.metadata.run_id), message.metadata.reply_to_message_id)
            for message in request.messages_list
        ]
        with mail.expecting(replies):
            response = super().PushMessages(request, context)
            for (key, replied_to), tree in zip(replies, request.message_object_trees, strict=True):
                mail.announce(key, replied_to, _missing(tree, set(response.objects_to_push)))
        return response

    def PushObject(
        self, request: message_pb2.PushObjectRequest, context: grpc.ServicerContext
    ) -> message_pb2.PushObjectResponse:
        """Note an object of a reply."""
        response = super().PushObject(request, context)
        if response.stored:
            self.board.mail.object_arrived(request.object_id)
        return response

    def GetRun(self, request: run_pb2.GetRunRequest, context: grpc.ServicerContext) -> run_pb2.GetRunResponse:
        """Answer at once, or, if asked to, when the run has ended: then with the error that Flower gives."""
        key = _end(request.run_id)
        since = self.board.bell.count(key)
        response = super().GetRun(request, context)
        if seconds := requested_hold(context, RUN_HOLD):
            with self.board.presence.held(request.node.node_id, key, context):
                hold(self.board.bell, key, lambda: self.board.bell.count(key) != since, seconds, context)
            response = super().GetRun(request, context)
        return response

    def _state(self) -> database.LinkState:
        state = self.state_factory.state()
        assert isinstance(state, database.LinkState)  # noqa: S101  we start Flower with a database
        return state

    def _is_online(self, node_id: int) -> bool:
        return bool(self._state().get_node_info(node_ids=[node_id], statuses=[NodeStatus.ONLINE]))

    def _resolve_in_flight(self, node_id: int) -> None:
        """See to messages that the node has been given and has not answered, and no longer will."""
        state, mail = self._state(), self.board.mail
        for message in state.unanswered(node_id):
            message_id, run_id = message.metadata.message_id, message.metadata.run_id
            if state.redeliver(message_id):
                mail.announce(_node(node_id), message_id, ())
                continue
            state.drop_reply(message_id)
            reason = f"SuperNode {node_id} was restarted, or lost its connection, while it worked on the message."
            reply = Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message)
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects, tree, key = get_all_nested_objects(reply), get_object_tree(reply), _replies(run_id)
            with mail.expecting([(key, message_id)]):
                session_id = state.start_session(run_id)
                stored, _ = state.store_message_and_object_tree(reply, tree, session_id)
                if not stored:  # the run has ended
                    state.delete_messages({message_id})
                    continue
                for object_id, content in objects.items():
                    state.store_object(run_id, session_id, object_id, content.deflate())
                mail.announce(key, message_id, ())
            log(WARNING, "[RUN %s] %s", run_id, reason)


class Runtime(SuperLinkRuntimeServicer):
    """The Runtime API: what ServerApp processes and executors call."""

    board: ClassVar[SuperLinkEvents]

    def PullPendingTasks(
        self, request: runtime_pb2.PullPendingTasksRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PullPendingTasksResponse:
        """Answer once a task is pending."""
        since = self.board.bell.count(TASKS)
        response = super().PullPendingTasks(request, context)
        seconds = requested_hold(context, TASK_HOLD, default=TASK_HOLD)
        if seconds and not response.tasks:
            hold(self.board.bell, TASKS, lambda: self.board.bell.count(TASKS) != since, seconds, context)
            response = super().PullPendingTasks(request, context)
        return response

    def CreateTask(
        self, request: runtime_pb2.CreateTaskRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.CreateTaskResponse:
        """Wake the executor."""
        response = super().CreateTask(request, context)
        self.board.add_task()
        return response

    def PushMessages(
        self, request: runtime_pb2.PushAppMessagesRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PushAppMessagesResponse:
        """Announce messages to the nodes they are for."""
        mail = self.board.mail
        messages = [
            (_node(message.metadata.dst_node_id), message.metadata.message_id) for message in request.messages_list
        ]
        with mail.expecting(messages):
            response = super().PushMessages(request, context)
            to_push = set(response.objects_to_push)
            for (key, message_id), stored, tree in zip(
                messages, response.message_ids, request.message_object_trees, strict=True
            ):
                if stored:
                    mail.announce(key, message_id, _missing(tree, to_push))
        return response

    def PushObject(
        self, request: message_pb2.PushObjectRequest, context: grpc.ServicerContext
    ) -> message_pb2.PushObjectResponse:
        """Note an object of a message."""
        response = super().PushObject(request, context)
        if response.stored:
            self.board.mail.object_arrived(request.object_id)
        return response

    def PullMessages(
        self, request: runtime_pb2.PullAppMessagesRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PullAppMessagesResponse:
        """Answer at once, or, if asked to, when a reply to one of the messages is complete."""
        mail, key = self.board.mail, _replies(get_authenticated_task().run_id)
        asked, board = set(request.message_ids), self.board
        if seconds := requested_hold(context, REPLY_HOLD):
            offline_count = board.offline_count
            hold(
                board.bell,
                key,
                lambda: bool(asked & mail.complete(key)) or board.offline_count != offline_count,
                seconds,
                context,
            )
        wanted = asked - mail.incomplete(key)  # a reply that is still coming in stays until a later call
        if asked and not wanted:
            return runtime_pb2.PullAppMessagesResponse()
        mail.forget(key, mail.complete(key) & wanted)
        return super().PullMessages(runtime_pb2.PullAppMessagesRequest(message_ids=wanted), context)

    def PushLogs(self, request: log_pb2.PushLogsRequest, context: grpc.ServicerContext) -> log_pb2.PushLogsResponse:
        """Wake whoever streams logs."""
        response = super().PushLogs(request, context)
        self.board.bell.notify(LOGS)
        return response

    def PushTaskOutput(
        self, request: runtime_pb2.PushTaskOutputRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PushTaskOutputResponse:
        """Say that the run has ended."""
        run_id = get_authenticated_task().run_id
        response = super().PushTaskOutput(request, context)
        self.board.end_run(run_id)
        return response


class Control(ControlServicer):
    """The Control API: what the `flwr` command calls."""

    board: ClassVar[SuperLinkEvents]

    def StartRun(
        self, request: control_pb2.StartRunRequest, context: grpc.ServicerContext
    ) -> control_pb2.StartRunResponse:
        """Wake the executor."""
        response = super().StartRun(request, context)
        self.board.add_task()
        return response

    def StopRun(
        self, request: control_pb2.StopRunRequest, context: grpc.ServicerContext
    ) -> control_pb2.StopRunResponse:
        """Say that the run has ended."""
        response = super().StopRun(request, context)
        if response.success:
            self.board.end_run(request.run_id)
            self.board.on_run_ended(request.run_id)
        return response


class LogClock:
    """Stands in for `time` in Flower's Control API: its wait for log lines ends when there are some."""

    PATIENCE = 2.0  # seconds: the end of a run whose ServerApp fell silent rings no bell

    def __init__(self, bell: KeyedNotifier) -> None:
        self._bell = bell
        self._thread = threading.local()

    def sleep(self, seconds: float) -> None:
        """Wait for a log line since this thread last waited, or as long as Flower asks for anything else."""
        if seconds != LOG_STREAM_INTERVAL:
            time.sleep(seconds)
            return
        if not hasattr(self._thread, "logs"):
            self._thread.logs = KeyedListener(self._bell, LOGS)
        self._thread.logs.wait(self.PATIENCE)


def install(board: SuperLinkEvents, spool: MessageFiles) -> None:
    """Put the servicers above in the place of Flower's own."""
    check_version()
    for servicer in (Fleet, Runtime, Control):
        servicer.board = board
    database.install(spool)
    signatures.verify_once()
    refusal.install()
    replace("flwr.superlink.cli.flower_superlink", "FleetServicer", Fleet)
    replace("flwr.superlink.servicer.runtime.runtime_grpc", "SuperLinkRuntimeServicer", Runtime)
    replace("flwr.superlink.servicer.control.control_grpc", "ControlServicer", Control)
    replace("flwr.superlink.servicer.control.control_handlers", "time", LogClock(board.bell))
    # The main thread only waits for a signal: stock wakes ten times a second for it.
    replace("flwr.superlink.cli.flower_superlink", "sleep", lambda seconds: time.sleep(60))


def run_superlink(board: SuperLinkEvents, spool: MessageFiles, *, first: bool = True) -> None:
    """Run `flower-superlink` with the arguments of `sys.argv`; does not return.

    `first`: whether it is the first in its container, so that no ServerApp of a run that was going on is left.
    """
    install(board, spool)
    add_exit_handler(board.bell.close)  # a held call would keep its thread, and with it the process, for seconds

    class Lifespan(SuperLinkLifespan):
        def startup(self) -> None:
            state = self.state_factory.state()
            if isinstance(state, database.LinkState):
                if first:
                    state.fail_running_tasks("The SuperLink was stopped or restarted while the run was going on.")
                board.restore(state)
                board.presence.on_gone = lambda node_id: gone(state, node_id)
            super().startup()
            board.on_serving()

    def gone(state: database.LinkState, node_id: int) -> None:
        if state.deactivate_node(node_id):
            log(WARNING, "SuperNode %s has gone: its connection was lost, and it has not called since", node_id)
            board.notify_offline(state, node_id)

    replace("flwr.superlink.cli.flower_superlink", "SuperLinkLifespan", Lifespan)
    flower_superlink()
