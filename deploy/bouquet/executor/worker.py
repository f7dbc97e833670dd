"""A worker: the process, forked from the zygote, in which the apps of one run are loaded and called."""

import base64
import os
import sys
from typing import Any

from bouquet.executor.channel import Channel
from bouquet.executor.linux import die_with_parent, name_process, volunteer_for_oom_kill
from bouquet.flower.client_app_process import ClientAppProcess
from bouquet.flower.server_app_process import run_serverapp
from bouquet.flower.task_queue import RuntimeApi


def work(executor: Channel, app: str, run_id: int, parent: int, api: dict[str, Any]) -> int:
    """Work on the executor's tasks until it closes the channel.

    Args:
        executor: The channel to the executor.
        app: `clientapp` or `serverapp`.
        run_id: The run whose app this process serves.
        parent: The zygote's process id.
        api: The fields of a `RuntimeApi`.

    Returns:
        The exit code of the process.
    """
    os.setpgid(0, 0)  # a process group: what the app starts can be killed with it
    die_with_parent(parent)
    volunteer_for_oom_kill()
    name_process(f"{app}-{run_id}")
    _reseed_numpy()
    serve = _serve_serverapp if app == "serverapp" else _serve_clientapp
    return serve(executor, RuntimeApi(**api))


def _serve_clientapp(executor: Channel, api: RuntimeApi) -> int:
    process = ClientAppProcess(
        api,
        on_pulled=lambda message: executor.send({"pulled": base64.b64encode(message).decode()}),
        on_replied=lambda: executor.send({"replied": True}),
    )
    try:
        while (request := executor.receive()[0]) is not None:
            usable = process.serve(request["token"])
            sys.stdout.flush()
            executor.send({"done": usable})
            if not usable:
                break
    finally:
        process.close()
    return 0


def _serve_serverapp(executor: Channel, api: RuntimeApi) -> int:
    request, _ = executor.receive()
    if request is None:
        return 0
    # Flower sends what the app prints to the run's log. Only native code's stderr goes to the container's log.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    try:
        run_serverapp(api, request["token"])
    except SystemExit as exit_:
        executor.send({"done": False})
        return int(exit_.code or 0)
    return 0


def _reseed_numpy() -> None:
    """Give this worker its own random numbers: all forks inherit the same state of NumPy's global generator."""
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
