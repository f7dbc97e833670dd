"""A worker: the process, forked from the zygote, in which the apps of one run are loaded and called."""

import base64
import os
import sys
from typing import Any

from bouquet.executor.channel import Channel
from bouquet.executor.linux import die_with_parent, name_process, volunteer_for_oom_kill
from bouquet.flower.client_app import ClientAppProcess
from bouquet.flower.server_app import run_serverapp
from bouquet.flower.task_queue import RuntimeApi


def work(executor: Channel, app: str, run_id: int, parent: int, api: dict[str, Any]) -> int:
    """Serve the executor until it closes the channel. Returns the exit code."""
    os.setpgid(0, 0)  # so that what the app starts can be ended with it
    die_with_parent(parent)
    volunteer_for_oom_kill()
    name_process(f"{app}-{run_id}")
    _reseed()
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
    # Its output goes to the run's log; what native code writes to stderr stays in the container's.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stdout.fileno())
    os.close(silence)
    try:
        run_serverapp(api, request["token"])
    except SystemExit as exit_:
        executor.send({"done": False})
        return int(exit_.code or 0)
    return 0


def _reseed() -> None:
    """Give each worker random numbers of its own: forks inherit NumPy's global generator as it stands."""
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
