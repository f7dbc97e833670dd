"""Run Flower's SuperLink or SuperNode, and the executor that works for it, in one process."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from flwr.supercore.constant import TaskType
from flwr.supercore.exit import add_exit_handler

from ..flower.superlink import Switchboard, run_superlink
from ..flower.supernode import Node, run_supernode
from ..flower.tasks import RuntimeApi, TaskQueue
from .executor import Executor, ExecutorSettings

RUNS_AT_A_TIME = 16


def supernode(
    arguments: Sequence[str],
    api: RuntimeApi,
    settings: ExecutorSettings,
    *,
    on_ready: Callable[[bool], None] = lambda ready: None,
    on_online: Callable[[int], None] = lambda node_id: None,
    on_offline: Callable[[str], None] = lambda reason: None,
    on_node: Callable[[Node], None] = lambda node: None,
) -> None:
    """Run `flower-supernode` with `arguments`, which say where `api` listens, and its executor.

    `on_ready` is called with whether the executor can work, `on_online` and `on_offline` as in `Node`, `on_node`
    once with the node itself.
    Returns when Flower gives up on the SuperLink; ends with `SystemExit` when it is told to stop.
    """
    node = Node(on_online, on_offline)
    executor = Executor(TaskQueue(api, TaskType.CLIENT_APP, node.tasks), api, settings)
    node.on_run_ended = executor.end_run
    on_node(node)
    sys.argv = ["flower-supernode", *arguments, "--isolation", "process"]
    _start(executor, on_ready)
    try:
        run_supernode(node)
    finally:
        executor.stop()


def superlink(
    arguments: Sequence[str],
    api: RuntimeApi,
    settings: ExecutorSettings,
    *,
    on_ready: Callable[[bool], None] = lambda ready: None,
    on_serving: Callable[[], None] = lambda: None,
) -> None:
    """Run `flower-superlink` with `arguments`, which say where `api` listens, and its executor.

    What `settings` say of tasks holds for messages; here a task is a whole run: many at a time, each for as long as
    it takes. Ends with `SystemExit` when it is told to stop.
    """
    settings = replace(settings, workers=RUNS_AT_A_TIME, task_seconds=None)
    board = Switchboard(on_serving)
    executor = Executor(TaskQueue(api, TaskType.SERVER_APP, board.tasks), api, settings)
    board.on_run_ended = executor.end_run
    sys.argv = ["flower-superlink", *arguments, "--isolation", "process"]
    _start(executor, on_ready)
    try:
        run_superlink(board)
    finally:
        executor.stop()


def _start(executor: Executor, on_ready: Callable[[bool], None]) -> None:
    add_exit_handler(executor.stop)
    executor.start(on_ready)
