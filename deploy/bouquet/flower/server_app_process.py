"""Run one ServerApp in this process, as Flower's `flwr-serverapp` does, but without its sleeps."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, NoReturn

import grpc
from flwr.app import Context
from flwr.common.logger import mirror_output_to_queue
from flwr.proto import log_pb2, node_pb2
from flwr.proto.runtime_pb2_grpc import RuntimeStub
from flwr.server.run_serverapp import run as stock_run
from flwr.serverapp.server_app import LoadServerAppError
from flwr.supercore.exit import flwr_exit as stock_flwr_exit
from flwr.supercore.object_ref import load_app
from flwr.superlink.runtime import run_serverapp as stock_run_serverapp

from bouquet.flower.array_files import ArrayFiles
from bouquet.flower.message_files import MessageFiles
from bouquet.flower.missing_module import explains_missing_modules
from bouquet.flower.moved_modules import find_moved_modules
from bouquet.flower.recorded_run import recorded_run
from bouquet.flower.replacements import replace
from bouquet.flower.run_grid import RunGrid
from bouquet.flower.task_queue import RuntimeApi
from bouquet.runtime.termination import ignore_sigterm
from bouquet.settings.run_settings import RunSettings

LOG_BATCH_SECONDS = 0.05
"""Log lines that come within this time are uploaded together."""


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
    replace(
        runtime,
        "GrpcGrid",
        partial(RunGrid, settings=RunSettings.read(), objects=MessageFiles(*folders) if folders else None),
    )
    replace(runtime, "start_log_uploader", start_log_uploader)
    replace(runtime, "flush_logs", flush_logs)
    replace(runtime, "flwr_exit", flwr_exit)

    def run(*, grid: RunGrid, context: Context, server_app_dir: str, server_app_attr: str) -> Context:
        app = Path(server_app_dir)
        with recorded_run(grid, context, app), explains_missing_modules():
            with loading(app):
                load_app(server_app_attr, LoadServerAppError, server_app_dir)
            return stock_run(grid=grid, context=context, server_app_dir=server_app_dir, server_app_attr=server_app_attr)

    replace(runtime, "run_", run)
    find_moved_modules()

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
