"""The executor's side of Flower's Runtime API: find, claim, keep alive and, if need be, fail tasks."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import message_from_proto
from flwr.proto import log_pb2, message_pb2, node_pb2, runtime_pb2
from flwr.proto.runtime_pb2_grpc import RuntimeStub
from flwr.proto.task_pb2 import Task
from flwr.supercore.constant import TASK_TOKEN_HEADER, TaskType
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.supernode.runtime.run_clientapp import push_message

from bouquet.flower.channels import open_channel
from bouquet.flower.holding import HOLD_HEADER
from bouquet.flower.notifier import KeyedListener

__all__ = ["RuntimeApi", "Task", "TaskQueue", "TaskToken", "TaskType"]

SERVERAPP_POLL_SECONDS = 5.0
"""Longest time between two requests for ServerApp tasks: a request also starts automations that are due, and finds
tasks whose claim has expired."""
CLIENTAPP_POLL_SECONDS = 20.0
"""The same for ClientApp tasks. A SuperNode has no automations, and each request costs 1.5 ms of CPU."""
STOCK_POLL_SECONDS = 1.0
"""Time between two requests to a server that does not hold its answers."""
HEARTBEAT_TIMEOUT_SECONDS = 5.0

_ACROSS_RESTART: dict[str, Any] = {"wait_for_ready": True, "timeout": 10.0}
"""Options of a call that waits for a server that is being restarted."""


@dataclass(frozen=True)
class RuntimeApi:
    """Where a Runtime API listens, and whether apps may install their dependencies.

    Attributes:
        address: `host:port`.
        root_certificates: Path of the CA certificates by which to verify the server. None: no TLS.
        install_dependencies: Whether apps may install their dependencies at run time.
        object_folders: The directories of the SuperLink's `MessageFiles`. None: this process cannot read them.
    """

    address: str
    root_certificates: str | None = None
    install_dependencies: bool = False
    object_folders: tuple[str, ...] | None = None

    def certificates(self) -> bytes | None:
        """Return the CA certificates, in PEM; None: no TLS."""
        return Path(self.root_certificates).read_bytes() if self.root_certificates else None

    def channel(self, component: str, *interceptors: Any) -> grpc.Channel:
        """Return a new channel to the API.

        Args:
            component: What the caller calls itself.
            interceptors: What each call passes through.
        """
        version = RuntimeVersionClientInterceptor(component_name=component)
        return open_channel(self.address, self.certificates(), [version, *interceptors])


class TaskToken(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc] # grpc has no types
    """Sends the token of a task with each call.

    Attributes:
        token: The token. It may change: one channel for all tasks of a process saves milliseconds for each.
    """

    def __init__(self, token: str) -> None:
        self.token = token

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        """Add the token to the metadata of one call."""
        metadata = (*(client_call_details.metadata or ()), (TASK_TOKEN_HEADER, self.token))
        return continuation(client_call_details._replace(metadata=metadata), request)


class TaskQueue:
    """Pending tasks of one type, and what the executor reports about those that it has claimed."""

    def __init__(self, api: RuntimeApi, task_type: TaskType, listener: KeyedListener | None = None) -> None:
        """Open a channel to the API.

        Args:
            api: Where to find tasks.
            task_type: The type of the tasks; others are left to others.
            listener: Waits for tasks if the server is in this process, or notifies this process of its tasks. That
                costs less CPU than a held call.
        """
        self._api = api
        self._type = task_type
        self._listener = listener
        self._poll_seconds = CLIENTAPP_POLL_SECONDS if task_type == TaskType.CLIENT_APP else SERVERAPP_POLL_SECONDS
        self._stub = RuntimeStub(api.channel("SuperExec"))

    def pending(self) -> Sequence[Task]:
        """Wait for pending tasks and return them, oldest first.

        It also waits while the server does not accept calls yet. It returns nothing if there was no task within the
        server's limit, or if the server went away.
        """
        start = time.monotonic()
        metadata: tuple[tuple[str, str], ...] = ()
        if self._listener:
            self._listener.wait(self._poll_seconds)
            metadata = ((HOLD_HEADER, "0"),)
        try:
            response = self._stub.PullPendingTasks(
                runtime_pb2.PullPendingTasksRequest(), wait_for_ready=True, metadata=metadata
            )
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            return ()
        tasks = [task for task in response.tasks if task.type == self._type]
        if not tasks and not self._listener and time.monotonic() - start < STOCK_POLL_SECONDS:
            time.sleep(STOCK_POLL_SECONDS)
        return tasks

    def claim(self, task: Task) -> str | None:
        """Claim a task.

        A claim whose answer was lost expires after a minute. Then the task is pending again.

        Returns:
            The token to work on the task. None if someone else was faster, or if the server went away.
        """
        try:
            return self._stub.ClaimTask(runtime_pb2.ClaimTaskRequest(task_id=task.task_id)).token or None
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            return None

    def heartbeat(self, token: str) -> bool:
        """Report to the server that a process works on a task; return False if the task has ended."""
        try:
            request = runtime_pb2.SendTaskHeartbeatRequest()
            metadata = ((TASK_TOKEN_HEADER, token),)
            return bool(
                self._stub.SendTaskHeartbeat(request, metadata=metadata, timeout=HEARTBEAT_TIMEOUT_SECONDS).success
            )
        except grpc.RpcError as error:
            return bool(error.code() != grpc.StatusCode.UNAUTHENTICATED)

    def fail(self, token: str, reason: str, message: bytes | None = None) -> None:
        """End a task whose process has ended.

        A ClientApp's message gets an error reply. A ServerApp's run fails, with a line in its log.

        Args:
            token: The token of the task.
            reason: Why the process ended.
            message: The message that a ClientApp process had pulled, serialized. None: it had not pulled it yet.
        """
        channel = self._api.channel("SuperExec", TaskToken(token))
        try:
            stub = RuntimeStub(channel)
            if self._type == TaskType.CLIENT_APP:
                _reply_with_error(stub, reason, message)
            else:
                node = node_pb2.Node(node_id=0)
                stub.PushLogs(log_pb2.PushLogsRequest(node=node, logs=[f"ERROR :     {reason}\n"]), **_ACROSS_RESTART)
            output = runtime_pb2.PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=reason)
            stub.PushTaskOutput(output, **_ACROSS_RESTART)
        finally:
            channel.close()

    def finish(self, token: str, reason: str) -> None:
        """End a task of a ClientApp that has replied, but whose process ended before it handed over its Context."""
        self._stub.PushTaskOutput(
            runtime_pb2.PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=reason),
            metadata=((TASK_TOKEN_HEADER, token),),
        )


def _reply_with_error(stub: RuntimeStub, reason: str, serialized: bytes | None) -> None:
    if serialized is None:  # the process ended before it pulled the message, so the message is still there
        try:
            stub.PullTaskInput(runtime_pb2.PullTaskInputRequest())
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise
        pulled = stub.PullMessages(runtime_pb2.PullAppMessagesRequest())
        if not pulled.messages_list:
            return
        proto = pulled.messages_list[0]
        stub.ConfirmMessageReceived(
            message_pb2.ConfirmMessageReceivedRequest(
                node=node_pb2.Node(node_id=proto.metadata.dst_node_id),
                run_id=proto.metadata.run_id,
                message_object_id=proto.metadata.message_id,
            )
        )
    else:
        proto = message_pb2.Message.FromString(serialized)
    message = message_from_proto(proto)
    context = Context(
        run_id=message.metadata.run_id,
        node_id=message.metadata.dst_node_id,
        node_config={},
        state=RecordDict(),
        run_config={},
    )
    push_message(stub, Message(Error(ErrorCode.CLIENT_APP_CRASHED, reason), reply_to=message), context)
