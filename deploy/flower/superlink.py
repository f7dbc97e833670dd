"""Flower's SuperLink with calls held until there is something to answer.

The servicers below take the place of Flower's own in the modules that start the three APIs; each method does what
Flower's does and either rings a bell after it, or holds before it.
"""

import threading
import time
from collections.abc import Callable, Hashable
from typing import ClassVar

import grpc
from flwr.common.constant import LOG_STREAM_INTERVAL
from flwr.proto import control_pb2, fleet_pb2, log_pb2, message_pb2, run_pb2, runtime_pb2
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.supercore.constant import OBJECT_PUSH_SESSION_TTL_SECONDS
from flwr.supercore.exit import add_exit_handler
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.interceptors import get_authenticated_task
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, flower_superlink
from flwr.superlink.servicer.control.control_servicer import ControlServicer
from flwr.superlink.servicer.runtime.runtime_servicer import SuperLinkRuntimeServicer

from . import database, refusal, signatures
from .patching import check_version, replace
from .waiting import Bell, Listener, Mailboxes, hold_asked

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


class Switchboard:
    """What the three APIs of one SuperLink tell each other, its executor and its owner.

    `on_serving` is called once the Control, Runtime and Fleet APIs accept calls, `on_run_ended` with the id of a
    run that was stopped by a user.
    """

    def __init__(self, on_serving: Callable[[], None] = lambda: None) -> None:
        self.bell = Bell()
        self.mail = Mailboxes(self.bell, patience=OBJECT_PUSH_SESSION_TTL_SECONDS)
        self.nodes_seen: set[int] = set()
        self.tasks = Listener(self.bell, TASKS)  # for the executor
        self.on_serving = on_serving
        self.on_run_ended: Callable[[int], None] = lambda run_id: None

    def end_run(self, run_id: int) -> None:
        """Release whoever waits for a run that has ended."""
        self.mail.forget(_replies(run_id))
        self.bell.ring(_replies(run_id))
        self.bell.ring(_end(run_id))
        self.bell.ring(LOGS)


def _missing(tree: message_pb2.ObjectTree, objects_to_push: set[str]) -> set[str]:
    return {node.object_id for node in iterate_object_tree(tree)} & objects_to_push


class Fleet(FleetServicer):
    """The Fleet API: what SuperNodes call."""

    board: ClassVar[Switchboard]

    def PullMessages(
        self, request: fleet_pb2.PullMessagesRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.PullMessagesResponse:
        """Answer once there is a complete message for the node."""
        board, mail, key = self.board, self.board.mail, _node(request.node.node_id)
        # What was stored before a restart has not been announced here: the first call of a node is not held.
        if request.node.node_id in board.nodes_seen:
            board.bell.hold(key, lambda: bool(mail.complete(key)) and not mail.incomplete(key), NODE_HOLD, context)
        board.nodes_seen.add(request.node.node_id)
        response = super().PullMessages(request, context)
        handed_out = [message.metadata.message_id for message in response.messages_list]
        mail.forget(key, handed_out or mail.complete(key))
        return response

    def PushMessages(
        self, request: fleet_pb2.PushMessagesRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.PushMessagesResponse:
        """Announce a reply."""
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
            self.board.mail.arrive(request.object_id)
        return response

    def GetRun(self, request: run_pb2.GetRunRequest, context: grpc.ServicerContext) -> run_pb2.GetRunResponse:
        """Answer at once, or, if asked to, when the run has ended: then with the error that Flower gives."""
        key = _end(request.run_id)
        since = self.board.bell.heard(key)
        response = super().GetRun(request, context)
        if seconds := hold_asked(context, RUN_HOLD):
            self.board.bell.hold(key, lambda: self.board.bell.heard(key) != since, seconds, context)
            response = super().GetRun(request, context)
        return response


class Runtime(SuperLinkRuntimeServicer):
    """The Runtime API: what ServerApp processes and executors call."""

    board: ClassVar[Switchboard]

    def PullPendingTasks(
        self, request: runtime_pb2.PullPendingTasksRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PullPendingTasksResponse:
        """Answer once a task is pending."""
        since = self.board.bell.heard(TASKS)
        response = super().PullPendingTasks(request, context)
        seconds = hold_asked(context, TASK_HOLD, unless_asked=TASK_HOLD)
        if seconds and not response.tasks:
            self.board.bell.hold(TASKS, lambda: self.board.bell.heard(TASKS) != since, seconds, context)
            response = super().PullPendingTasks(request, context)
        return response

    def CreateTask(
        self, request: runtime_pb2.CreateTaskRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.CreateTaskResponse:
        """Wake the executor."""
        response = super().CreateTask(request, context)
        self.board.bell.ring(TASKS)
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
            self.board.mail.arrive(request.object_id)
        return response

    def PullMessages(
        self, request: runtime_pb2.PullAppMessagesRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PullAppMessagesResponse:
        """Answer at once, or, if asked to, when a reply to one of the messages is complete."""
        mail, key = self.board.mail, _replies(get_authenticated_task().run_id)
        asked = set(request.message_ids)
        if seconds := hold_asked(context, REPLY_HOLD):
            self.board.bell.hold(key, lambda: bool(asked & mail.complete(key)), seconds, context)
        wanted = asked - mail.incomplete(key)  # a reply that is still coming in stays until a later call
        if asked and not wanted:
            return runtime_pb2.PullAppMessagesResponse()
        mail.forget(key, mail.complete(key) & wanted)
        return super().PullMessages(runtime_pb2.PullAppMessagesRequest(message_ids=wanted), context)

    def PushLogs(self, request: log_pb2.PushLogsRequest, context: grpc.ServicerContext) -> log_pb2.PushLogsResponse:
        """Wake whoever streams logs."""
        response = super().PushLogs(request, context)
        self.board.bell.ring(LOGS)
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

    board: ClassVar[Switchboard]

    def StartRun(
        self, request: control_pb2.StartRunRequest, context: grpc.ServicerContext
    ) -> control_pb2.StartRunResponse:
        """Wake the executor."""
        response = super().StartRun(request, context)
        self.board.bell.ring(TASKS)
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

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._thread = threading.local()

    def sleep(self, seconds: float) -> None:
        """Wait for a log line since this thread last waited, or as long as Flower asks for anything else."""
        if seconds != LOG_STREAM_INTERVAL:
            time.sleep(seconds)
            return
        if not hasattr(self._thread, "logs"):
            self._thread.logs = Listener(self._bell, LOGS)
        self._thread.logs.wait(self.PATIENCE)


def install(board: Switchboard) -> None:
    """Put the servicers above in the place of Flower's own."""
    check_version()
    for servicer in (Fleet, Runtime, Control):
        servicer.board = board
    database.install()
    refusal.install()
    signatures.verify_once()
    replace("flwr.superlink.cli.flower_superlink", "FleetServicer", Fleet)
    replace("flwr.superlink.servicer.runtime.runtime_grpc", "SuperLinkRuntimeServicer", Runtime)
    replace("flwr.superlink.servicer.control.control_grpc", "ControlServicer", Control)
    replace("flwr.superlink.servicer.control.control_handlers", "time", LogClock(board.bell))
    # The main thread only waits for a signal: stock wakes ten times a second for it.
    replace("flwr.superlink.cli.flower_superlink", "sleep", lambda seconds: time.sleep(60))


def run_superlink(board: Switchboard) -> None:
    """Run `flower-superlink` with the arguments of `sys.argv`; does not return."""
    install(board)
    add_exit_handler(board.bell.close)  # a held call would keep its thread, and with it the process, for seconds

    class Lifespan(SuperLinkLifespan):
        def startup(self) -> None:
            super().startup()
            board.on_serving()

    replace("flwr.superlink.cli.flower_superlink", "SuperLinkLifespan", Lifespan)
    flower_superlink()
