"""Run Flower's SuperLink or SuperNode, and the executor that works for it.

A SuperNode and its executor are one process. A SuperLink is a child of its executor's process, which starts it anew
when it dies: the ServerApps, children of the executor, go on, as do the runs.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.supercore.constant import TaskType
from flwr.supercore.exit import add_exit_handler

from ..flower.channels import reconnect_soon
from ..flower.supernode import Node, run_supernode
from ..flower.tasks import RuntimeApi, TaskQueue
from ..flower.waiting import Bell, Listener
from .executor import Executor, ExecutorSettings
from .keeper import Keeper

RUNS_AT_A_TIME = 16
TASKS = "tasks"


def supernode(
    arguments: Sequence[str],
    api: RuntimeApi,
    settings: ExecutorSettings,
    *,
    on_ready: Callable[[bool], None] = lambda ready: None,
    on_online: Callable[[int], None] = lambda node_id: None,
    on_offline: Callable[[str], None] = lambda reason: None,
    on_task: Callable[[int | None], None] = lambda run_id: None,
    on_node: Callable[[Node], None] = lambda node: None,
) -> None:
    """Run `flower-supernode` with `arguments`, which say where `api` listens, and its executor.

    `on_ready` is called with whether the executor can work, `on_online` and `on_offline` as in `Node`, `on_task` with
    the run of the message that is worked on, and with None when it is done, `on_node` once with the node itself.
    Returns when Flower gives up on the SuperLink; ends with `SystemExit` when it is told to stop.
    """
    reconnect_soon()
    node = Node(on_online, on_offline)
    executor = Executor(TaskQueue(api, TaskType.CLIENT_APP, node.tasks), api, settings)
    node.on_run_ended = executor.end_run
    executor.on_task = on_task
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
    spool: Path,
    *,
    on_ready: Callable[[bool], None] = lambda ready: None,
    on_serving: Callable[[bool], None] = lambda serving: None,
) -> None:
    """Run the executor of a SuperLink, and `flower-superlink` with `arguments`, which say where `api` listens.

    `spool` is a folder for what a SuperLink leaves to the one that is started anew in its place. `on_serving` is
    called with whether there is one that serves. What `settings` say of tasks holds for messages; here a task is a
    whole run: many at a time, each for as long as it takes. Ends with `SystemExit`.
    """
    reconnect_soon()
    settings = replace(settings, workers=RUNS_AT_A_TIME, task_seconds=None)
    bell = Bell()
    executor = Executor(TaskQueue(api, TaskType.SERVER_APP, Listener(bell, TASKS)), api, settings)

    def hear(message: dict[str, Any]) -> None:
        if "serving" in message:
            on_serving(True)
        elif "task" in message:
            bell.ring(TASKS)
        elif "ended" in message:
            executor.end_run(message["ended"])

    def command(channel: int, first: bool) -> list[str]:
        options = ["--channel", str(channel), "--parent", str(os.getpid()), "--spool", str(spool)]
        options += ["--first"] if first else []
        return [sys.executable, "-m", "deploy.executor.superlink", *options, "--", *arguments]

    keeper = Keeper("flower-superlink", command, hear, lambda: on_serving(False))
    executor.start(on_ready)
    try:
        keeper.run()
    finally:
        executor.stop("The SuperLink was stopped.")
        keeper.stop()


def _start(executor: Executor, on_ready: Callable[[bool], None]) -> None:
    add_exit_handler(executor.stop)
    executor.start(on_ready)
