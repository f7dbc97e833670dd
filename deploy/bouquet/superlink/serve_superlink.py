"""The process that runs a SuperLink's executor, and keeps Flower's SuperLink running as its child.

`python -m bouquet.superlink.serve_superlink <arguments of flower-superlink>`

The executor's ServerApps are children of this process, so they survive a crash of Flower's SuperLink, and so do runs.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bouquet.contract.partitions import RUNS
from bouquet.contract.readiness import Readiness
from bouquet.errors import report_errors
from bouquet.executor.executor import Executor
from bouquet.executor.restarter import Restarter
from bouquet.flower import stock
from bouquet.flower.notifier import KeyedListener, KeyedNotifier
from bouquet.flower.task_queue import RuntimeApi, TaskQueue, TaskType
from bouquet.runtime.health import Health, keep_pulsing
from bouquet.settings.env import Directories
from bouquet.settings.executor_settings import ExecutorSettings
from bouquet.settings.run_settings import RunSettings

RUNS_AT_A_TIME = 16
TASKS = "tasks"
STOCK_RESULTS = "stock"
"""The results folder of all runs together with Flower's own executor, which gives no run a working directory."""


def serve(arguments: Sequence[str], settings: ExecutorSettings, directories: Directories, results: Path) -> None:
    """Serve until SIGTERM or SIGINT; ends with `SystemExit`.

    Args:
        arguments: The arguments of `flower-superlink`.
        settings: How to run ServerApps. A task is a whole run here, so many run at a time and none has a time limit.
        directories: Where readiness is declared, and where message files are kept: small ones in the run directory,
            in memory; large ones beside the database, on disk.
        results: The folder for what ServerApps save.
    """
    readiness = Readiness(directories.run)
    if settings.kind == "stock":
        keep_pulsing(readiness.pulse)
        folder = results / STOCK_RESULTS
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        stock.superlink(arguments, readiness.declare)
        return
    health = Health(readiness)
    shutil.rmtree(directories.run / RUNS, ignore_errors=True)
    message_files, large_files = directories.run / "messages", directories.state / "messages"
    for folder in (message_files, large_files):
        shutil.rmtree(folder, ignore_errors=True)  # their ServerApps ended with the container
        folder.mkdir(mode=0o700)
    api = RuntimeApi(
        address=arguments[arguments.index("--serverappio-api-address") + 1],
        object_folders=(str(message_files), str(large_files)),
    )
    notifier = KeyedNotifier()
    queue = TaskQueue(api, TaskType.SERVER_APP, KeyedListener(notifier, TASKS))
    executor = Executor(queue, api, replace(settings, workers=RUNS_AT_A_TIME, task_seconds=None))

    def on_message(message: dict[str, Any]) -> None:
        if "serving" in message:
            health.set_flower(True)
        elif "alive" in message:
            if executor.is_responsive():
                health.pulse()
        elif "task" in message:
            notifier.notify(TASKS)
        elif "ended" in message:
            executor.end_run(message["ended"])

    def command(channel: int, first: bool) -> list[str]:
        options = ["--channel", str(channel), "--parent", str(os.getpid())]
        options += ["--run-dir", str(directories.run)]
        options += ["--message-files", str(message_files), "--large-files", str(large_files)]
        options += ["--first"] if first else []
        return [sys.executable, "-P", "-m", "bouquet.superlink.flower_process", *options, "--", *arguments]

    flower = Restarter("flower-superlink", command, on_message, lambda: health.set_flower(False))
    executor.start(health.set_executor)
    try:
        flower.run()
    finally:
        executor.stop("The SuperLink was stopped.")
        flower.stop()


def main() -> None:
    """Serve with the arguments of the command line."""
    serve(sys.argv[1:], ExecutorSettings.read("serverapp"), Directories.read(), RunSettings.read().results_dir)


if __name__ == "__main__":
    report_errors(main)
