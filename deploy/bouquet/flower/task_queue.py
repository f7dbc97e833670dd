"""The executor's side of Flower's Runtime API: see, claim, keep alive and, if need be, fail tasks."""

import time
from collections.abc import Sequence
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
from flwr.supercore.exit import add_exit_handler as at_exit
from flwr.supercore.grpc import create_channel
from flwr.supercore.interceptors import RuntimeTokenClientInterceptor, RuntimeVersionClientInterceptor
from flwr.supernode.runtime.run_clientapp import push_message

from bouquet.flower.holding import HOLD_HEADER
from bouquet.flower.notifier import KeyedListener

LISTEN = 5.0  # seconds; a look starts automations that are due, and finds tasks that are pending anew
NODE_LISTEN = 20.0  # seconds, at a SuperNode, which has no automations: each look is 1.5 ms of CPU
PATIENCE: dict[str, Any] = {"wait_for_ready": True, "timeout": 10.0}  # for a server that is started anew
STOCK_PACE = 1.0  # seconds between two looks at a server that does not hold its answers


__all__ = ["RuntimeApi", "TaskQueue", "TaskType", "at_exit"]


@dataclass(frozen=True)
class RuntimeApi:
    """Where a Runtime API listens, and whether apps may install their dependencies."""

    address: str
    root_certificates: str | None = None  # path of a CA certificate; None: no TLS
    install_dependencies: bool = False

    def certificates(self) -> bytes | None:
        """The CA certificate."""
        return Path(self.root_certificates).read_bytes() if self.root_certificates else None

    def channel(self, component: str, *interceptors: Any) -> grpc.Channel:
        """A new channel to the API."""
        return create_channel(
            server_address=self.address,
            insecure=self.root_certificates is None,
            root_certificates=self.certificates(),
            interceptors=[RuntimeVersionClientInterceptor(component_name=component), *interceptors],
        )


class TaskQueue:
    """Pending tasks of one type, and what the executor says about those it has claimed."""

    def __init__(self, api: RuntimeApi, task_type: TaskType, listener: KeyedListener | None = None) -> None:
        """`listener` hears of tasks where the server is in the same process; a held call would cost more CPU."""
        self._api = api
        self._type = task_type
        self._listener = listener
        self._patience = NODE_LISTEN if task_type == TaskType.CLIENT_APP else LISTEN
        self._stub = RuntimeStub(api.channel("SuperExec"))

    def pending(self) -> Sequence[Task]:
        """Wait for pending tasks, oldest first; empty if none came within the server's limit, or the server went.

        Waits, too, while the server does not accept calls yet.
        """
        start = time.monotonic()
        metadata: tuple[tuple[str, str], ...] = ()
        if self._listener:
            self._listener.wait(self._patience)
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
        if not tasks and not self._listener and time.monotonic() - start < STOCK_PACE:
            time.sleep(STOCK_PACE)
        return tasks

    def claim(self, task: Task) -> str | None:
        """Claim a task: the token to work on it, or None if someone else was faster, or the server went.

        A claim whose answer was lost runs out after a minute, and the task is pending anew.
        """
        try:
            return self._stub.ClaimTask(runtime_pb2.ClaimTaskRequest(task_id=task.task_id)).token or None
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            return None

    def heartbeat(self, token: str) -> bool:
        """Tell the server that the task is being worked on; False if it has been ended meanwhile."""
        try:
            request = runtime_pb2.SendTaskHeartbeatRequest()
            metadata = ((TASK_TOKEN_HEADER, token),)
            return bool(self._stub.SendTaskHeartbeat(request, metadata=metadata, timeout=5).success)
        except grpc.RpcError as error:
            return bool(error.code() != grpc.StatusCode.UNAUTHENTICATED)

    def fail(self, token: str, reason: str, message: bytes | None = None) -> None:
        """End a task whose process is gone, in the way that its type asks for.

        ClientApp: an error reply to `message`, the serialized message that the process had pulled; None if it had
        not come that far. ServerApp: a line in the run's log, and the run has failed.
        """
        channel = self._api.channel("SuperExec", RuntimeTokenClientInterceptor(token))
        try:
            stub = RuntimeStub(channel)
            if self._type == TaskType.CLIENT_APP:
                _reply_with_error(stub, reason, message)
            else:
                node = node_pb2.Node(node_id=0)
                stub.PushLogs(log_pb2.PushLogsRequest(node=node, logs=[f"ERROR :     {reason}\n"]), **PATIENCE)
            output = runtime_pb2.PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=reason)
            stub.PushTaskOutput(output, **PATIENCE)
        finally:
            channel.close()

    def finish(self, token: str, reason: str) -> None:
        """End a ClientApp task that has replied, but whose process did not live to hand in its Context."""
        self._stub.PushTaskOutput(
            runtime_pb2.PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=reason),
            metadata=((TASK_TOKEN_HEADER, token),),
        )


def _reply_with_error(stub: RuntimeStub, reason: str, serialized: bytes | None) -> None:
    if serialized is None:  # the process died before it had the message: it is still there
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
