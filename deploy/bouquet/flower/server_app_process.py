"""Run one ServerApp in this process, as Flower's `flwr-serverapp` does, but without its sleeps."""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, NoReturn

import grpc
from flwr.app import Context, Message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.logger import mirror_output_to_queue
from flwr.proto import log_pb2, message_pb2, node_pb2
from flwr.proto.runtime_pb2_grpc import RuntimeStub
from flwr.server.run_serverapp import run as stock_run
from flwr.serverapp import Grid
from flwr.serverapp.server_app import LoadServerAppError
from flwr.supercore.exit import flwr_exit as stock_flwr_exit
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.supercore.object_ref import load_app
from flwr.supercore.retry import wrap_stub
from flwr.superlink.grid import GrpcGrid
from flwr.superlink.runtime import run_serverapp as stock_run_serverapp

from bouquet.flower.array_files import ArrayFiles
from bouquet.flower.channels import open_channel, with_quick_retries
from bouquet.flower.holding import HoldClientInterceptor, holding
from bouquet.flower.message_files import MessageFiles
from bouquet.flower.messages import error_from_node
from bouquet.flower.missing_module import explains_missing_modules
from bouquet.flower.replacements import replace
from bouquet.flower.task_queue import RuntimeApi, TaskToken
from bouquet.runtime.termination import ignore_sigterm

REPLY_HOLD_SECONDS = 5.0
"""How long our SuperLink may hold a pull while there is no reply."""
STOCK_POLL_SECONDS = 3.0
"""Time between two pulls from a stock SuperLink, which does not hold them."""
HELD_SECONDS = 0.5
"""An empty answer that took longer was held."""
LOG_BATCH_SECONDS = 0.05
"""Log lines that come within this time are uploaded together."""


@dataclass(frozen=True)
class _PulledObject:
    """An object that was read from a file, in the shape of a `PullObjectResponse`, which would copy the bytes twice."""

    object_content: bytes
    object_found: bool = True
    object_available: bool = True


class WaitingGrid(GrpcGrid):
    """A `GrpcGrid` that waits for replies by held calls instead of polling, and for a SuperLink that is restarted.

    Args:
        objects: Files of the SuperLink's objects, to read an object from its file instead of pulling it. None: no
            access to them.
        arguments: Those of `GrpcGrid`.
    """

    def __init__(self, *arguments: Any, objects: MessageFiles | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._objects = objects

    def _connect(self) -> None:
        """Connect to the Runtime API. Flower calls it before the first call, and after `close`."""
        self._channel = open_channel(
            self._addr,
            None if self._insecure else self._cert,
            [
                RuntimeVersionClientInterceptor(component_name="flwr-serverapp"),
                TaskToken(self._token),
                HoldClientInterceptor(),
            ],
        )
        self._grpc_stub = RuntimeStub(self._channel)
        wrap_stub(self._grpc_stub, with_quick_retries(self._retry_invoker))
        if self._objects:
            self._grpc_stub.PullObject = partial(_read_object, self._objects, self._grpc_stub.PullObject)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages, wait for their replies, and return them.

        Args:
            messages: The messages.
            timeout: Seconds to wait at most. None: until all replies are here.

        Returns:
            The replies that came in time. An error that the SuperLink gives on behalf of a node comes from that node.
        """
        messages = list(messages)
        waiting_for = set(self.push_messages(messages))
        nodes = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
        del messages
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting_for:
            start = time.monotonic()
            left = REPLY_HOLD_SECONDS if deadline is None else deadline - start
            if left <= 0:
                break
            with holding(min(left, REPLY_HOLD_SECONDS)):
                received = list(self.pull_messages(waiting_for))
            replies += [_from_node(reply, nodes.get(reply.metadata.reply_to_message_id)) for reply in received]
            waiting_for -= {message.metadata.reply_to_message_id for message in received}
            if not received and time.monotonic() - start < min(HELD_SECONDS, left):
                time.sleep(min(STOCK_POLL_SECONDS, left))
        return replies


def _read_object(
    objects: MessageFiles, pull: Callable[[message_pb2.PullObjectRequest], Any], request: message_pb2.PullObjectRequest
) -> Any:
    """Return an object from its file. If it has none (yet), the SuperLink answers."""
    content = objects.read("object", request.object_id)
    return pull(request) if content is None else _PulledObject(content)


def _from_node(reply: Message, node_id: int | None) -> Message:
    is_superlinks = reply.metadata.src_node_id == SUPERLINK_NODE_ID and reply.has_error()
    return error_from_node(reply, node_id) if is_superlinks and node_id is not None else reply


def _upload_logs(log_queue: Queue[str | None], node_id: int, run_id: int, stub: RuntimeStub) -> None:
    lines: list[str] = []
    ended = False
    while not ended:
        taken = [log_queue.get()]
        time.sleep(LOG_BATCH_SECONDS)
        try:
            while True:
                taken.append(log_queue.get_nowait())
        except Empty:
            pass
        ended = None in taken
        lines += [line for line in taken if line is not None]
        if lines:
            request = log_pb2.PushLogsRequest(node=node_pb2.Node(node_id=node_id), run_id=run_id, logs=lines)
            try:
                stub.PushLogs(request)
                lines.clear()
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
        for _ in taken:
            log_queue.task_done()


def start_log_uploader(log_queue: Queue[str | None], node_id: int, run_id: int, stub: RuntimeStub) -> Thread:
    """Upload lines as they come into the queue, in a thread, until None comes."""
    thread = Thread(target=_upload_logs, args=(log_queue, node_id, run_id, stub), daemon=True)
    thread.start()
    return thread


def flush_logs(log_queue: Queue[str | None], timeout: float = 3.0) -> bool:
    """Wait until all lines in the queue are uploaded, for `timeout` seconds; return whether they are."""
    with log_queue.all_tasks_done:
        return log_queue.all_tasks_done.wait_for(lambda: not log_queue.unfinished_tasks, timeout)


def flwr_exit(**arguments: Any) -> NoReturn:
    """Hand over the result and exit. SIGTERM, which follows the run's end, would wait for Flower's lock for ever."""
    ignore_sigterm()
    stock_flwr_exit(**arguments)


def run_serverapp(api: RuntimeApi, token: str, loading: Callable[[Path], AbstractContextManager[None]]) -> None:
    """Work on a task: one run, to its end.

    Args:
        api: The SuperLink's Runtime API.
        token: The token of the task.
        loading: Surrounds the import of the app in a folder.

    Raises:
        SystemExit: The run has ended.
    """
    runtime = "flwr.superlink.runtime.run_serverapp"
    folders = [Path(folder) for folder in api.object_folders or ()]
    replace(runtime, "GrpcGrid", partial(WaitingGrid, objects=MessageFiles(*folders) if folders else None))
    replace(runtime, "start_log_uploader", start_log_uploader)
    replace(runtime, "flush_logs", flush_logs)
    replace(runtime, "flwr_exit", flwr_exit)

    @explains_missing_modules()
    def run(*, grid: Grid, context: Context, server_app_dir: str, server_app_attr: str) -> Context:
        with loading(Path(server_app_dir)):
            load_app(server_app_attr, LoadServerAppError, server_app_dir)
        return stock_run(grid=grid, context=context, server_app_dir=server_app_dir, server_app_attr=server_app_attr)

    replace(runtime, "run_", run)

    if folders:
        ArrayFiles(folders[-1]).register()

    log_queue: Queue[str | None] = Queue()
    mirror_output_to_queue(log_queue)
    stock_run_serverapp(
        runtime_api_address=api.address,
        log_queue=log_queue,
        token=token,
        insecure=api.root_certificates is None,
        certificates=api.certificates(),
        runtime_dependency_install=api.install_dependencies,
    )
