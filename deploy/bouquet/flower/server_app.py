"""Run one ServerApp in this process: Flower's `flwr-serverapp` without its sleeps."""

import time
from collections.abc import Iterable
from queue import Empty, Queue
from threading import Thread
from typing import Any

import grpc
from flwr.app import Message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.logger import mirror_output_to_queue
from flwr.proto import log_pb2, node_pb2
from flwr.proto.runtime_pb2_grpc import RuntimeStub
from flwr.superlink.grid import GrpcGrid
from flwr.superlink.runtime import run_serverapp as stock_run_serverapp

from bouquet.flower.channels import reconnect_soon, without_watch
from bouquet.flower.holding import HoldClientInterceptor, holding
from bouquet.flower.replacements import replace
from bouquet.flower.task_queue import RuntimeApi

REPLY_HOLD = 5.0  # seconds: what we ask our SuperLink for
STOCK_PACE = 3.0  # seconds between two looks at a SuperLink that does not hold
HELD = 0.5  # seconds: an empty answer that took longer was held
LOG_PAUSE = 0.05  # seconds: lines that come within it travel together


class WaitingGrid(GrpcGrid):
    """A `GrpcGrid` whose `send_and_receive` wakes with the replies instead of looking every 3 s."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages and collect the replies: all, or those that came within `timeout` seconds."""
        messages = list(messages)
        waiting_for = set(self.push_messages(messages))
        nodes = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
        del messages
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting_for:
            start = time.monotonic()
            left = REPLY_HOLD if deadline is None else deadline - start
            if left <= 0:
                break
            with holding(min(left, REPLY_HOLD)):
                received = list(self.pull_messages(waiting_for))
            for message in received:
                _name_node(message, nodes.get(message.metadata.reply_to_message_id))
            replies += received
            waiting_for -= {message.metadata.reply_to_message_id for message in received}
            if not received and time.monotonic() - start < min(HELD, left):
                time.sleep(min(STOCK_PACE, left))
        return replies


def _name_node(reply: Message, node_id: int | None) -> None:
    """Have an error that the SuperLink gives for a node come from that node, and name it."""
    if node_id is not None and reply.metadata.src_node_id == SUPERLINK_NODE_ID and reply.has_error():
        reply.metadata.__dict__["_src_node_id"] = node_id
        reply.error.__dict__["_reason"] = f"SuperNode {node_id}: {reply.error.reason}"


def _upload_logs(log_queue: Queue[str | None], node_id: int, run_id: int, stub: RuntimeStub) -> None:
    lines: list[str] = []
    ended = False
    while not ended:
        taken = [log_queue.get()]
        time.sleep(LOG_PAUSE)
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
    """Upload what comes into the queue, as it comes."""
    thread = Thread(target=_upload_logs, args=(log_queue, node_id, run_id, stub), daemon=True)
    thread.start()
    return thread


def flush_logs(log_queue: Queue[str | None], timeout: float = 3.0) -> bool:
    """Wait until all that is in the queue has been uploaded."""
    with log_queue.all_tasks_done:
        return log_queue.all_tasks_done.wait_for(lambda: not log_queue.unfinished_tasks, timeout)


def run_serverapp(api: RuntimeApi, token: str) -> None:
    """Work on the task of `token`: one run, to its end. Raises `SystemExit`, as Flower's does."""

    def create_channel(*, interceptors: list[Any], **options: Any) -> grpc.Channel:
        return without_watch(stock_create_channel(interceptors=[*interceptors, HoldClientInterceptor()], **options))

    reconnect_soon()  # a SuperLink that dies is started anew: every call of Flower's stub waits for it
    stock_create_channel = replace("flwr.superlink.grid.grpc_grid", "create_channel", create_channel)
    runtime = "flwr.superlink.runtime.run_serverapp"
    replace(runtime, "GrpcGrid", WaitingGrid)
    replace(runtime, "start_log_uploader", start_log_uploader)
    replace(runtime, "flush_logs", flush_logs)

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
