"""A worker: the process, forked from the zygote, in which the apps of one run are loaded and called."""

import base64
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bouquet.executor.channel import Channel
from bouquet.executor.gpu_share import GpuShare
from bouquet.executor.linux import die_with_parent, name_process, volunteer_for_oom_kill
from bouquet.executor.memory_growth import MemoryGrowth
from bouquet.executor.preload import Preload
from bouquet.flower.client_app_process import ClientAppProcess, Served
from bouquet.flower.server_app_process import run_serverapp
from bouquet.flower.task_queue import RuntimeApi
from bouquet.runtime.log import LOGGER
from bouquet.runtime.termination import Terminated, exit_on_sigterm

Loading = Callable[[Path], AbstractContextManager[None]]
"""Surrounds the import of an app in a folder."""


@dataclass(frozen=True)
class Bounds:
    """How long a ClientApp worker is used.

    Attributes:
        messages: How many messages it serves; None for no limit.
        growth_mib: By how many MiB it may grow: see `MemoryGrowth`.
    """

    messages: int | None = None
    growth_mib: int | None = None


def work(
    executor: Channel,
    preload: Preload,
    *,
    app: str,
    run_id: int,
    parent: int,
    api: dict[str, Any],
    report: bool,
    bounds: dict[str, int | None],
    folder: str | None,
) -> int:
    """Work on the executor's tasks until it closes the channel.

    Args:
        executor: The channel to the executor.
        preload: What the zygote has imported.
        app: `clientapp` or `serverapp`.
        run_id: The run whose app this process serves.
        parent: The zygote's process id.
        api: The fields of a `RuntimeApi`.
        report: Whether to log what preloading changes for the app; otherwise another worker of the run has.
        bounds: The fields of `Bounds`.
        folder: The app's working directory, made if it is missing; None: that of the zygote.

    Returns:
        The exit code of the process.

    Raises:
        Terminated: The process got SIGTERM.
    """
    os.setpgid(0, 0)  # a process group: what the app starts can be killed with it
    die_with_parent(parent)
    volunteer_for_oom_kill()
    name_process(f"{app}-{run_id}")
    exit_on_sigterm()
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
    _reseed_numpy()
    loading = partial(preload.loading, report=report)
    if app == "serverapp":
        return _serve_serverapp(executor, RuntimeApi(**api), loading)
    gpu_share = GpuShare(report=report)
    return _serve_clientapp(executor, RuntimeApi(**api), loading, gpu_share, Bounds(**bounds), run_id)


def _serve_clientapp(
    executor: Channel, api: RuntimeApi, loading: Loading, gpu_share: GpuShare, bounds: Bounds, run_id: int
) -> int:
    def on_pulled(message: bytes) -> None:
        executor.send({"pulled": base64.b64encode(message).decode()})
        gpu_share.apply()

    @contextmanager
    def loading_on_gpu(folder: Path) -> Iterator[None]:
        with loading(folder):
            yield
        gpu_share.apply()

    process = ClientAppProcess(
        api,
        on_pulled=on_pulled,
        on_replied=lambda: executor.send({"replied": True}),
        loading=loading_on_gpu,
    )
    memory = MemoryGrowth(bounds.growth_mib)
    messages = 0
    try:
        while (request := executor.receive()[0]) is not None:
            served = process.serve(request["token"])
            messages += 1
            usable = served.usable and messages != bounds.messages and not _has_grown(memory, served, messages, run_id)
            sys.stdout.flush()
            executor.send({"done": usable})
            if not usable:
                break
    finally:
        process.close()
    return 0


def _has_grown(memory: MemoryGrowth, served: Served, messages: int, run_id: int) -> bool:
    """Return whether this process has grown too much, and log that."""
    growth = memory.after_message(served.kind)
    if growth is None:
        return False
    LOGGER.warning(
        "[RUN %s] %s: the ClientApp process has grown from %s to %s MiB in %s messages, by more than "
        "EXECUTOR_GROWTH=%s (MiB). The next message gets a new process",
        *(run_id, served.node, growth.start_mib, growth.now_mib, messages, memory.limit_mib),
    )
    return True


def _serve_serverapp(executor: Channel, api: RuntimeApi, loading: Loading) -> int:
    request, _ = executor.receive()
    if request is None:
        return 0
    # Flower sends what the app prints to the run's log. Only native code's stderr goes to the container's log.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    try:
        run_serverapp(api, request["token"], loading)
    except Terminated:
        raise
    except SystemExit as exit_:
        executor.send({"done": False})
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return 0


def _reseed_numpy() -> None:
    """Give this worker its own random numbers: all forks inherit the same state of NumPy's global generator."""
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
