"""Run Flower's SuperLink or SuperNode, and the executor that works for it, in one process."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from flwr.supercore.constant import TaskType
from flwr.supercore.exit import add_exit_handler

from ..flower.superlink import run_superlink
from ..flower.supernode import run_supernode
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
) -> None:
    """Run `flower-supernode` with `arguments`, which say where `api` listens, and its executor.

    `on_ready` is called with whether the executor can work, `on_online` and `on_offline` as in `run_supernode`.
    Returns when Flower gives up on the SuperLink; ends with `SystemExit` when it is told to stop.
    """
    executor = _start(api, settings, TaskType.CLIENT_APP, on_ready)
    sys.argv = ["flower-supernode", *arguments, "--isolation", "process"]
    try:
        run_supernode(on_online, on_offline, on_run_ended=executor.end_run)
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
    executor = _start(api, settings, TaskType.SERVER_APP, on_ready)
    sys.argv = ["flower-superlink", *arguments, "--isolation", "process"]
    try:
        run_superlink(on_serving, on_run_ended=executor.end_run)
    finally:
        executor.stop()


def _start(
    api: RuntimeApi, settings: ExecutorSettings, task_type: TaskType, on_ready: Callable[[bool], None]
) -> Executor:
    executor = Executor(TaskQueue(api, task_type), api, settings)
    add_exit_handler(executor.stop)
    executor.start(on_ready)
    return executor
