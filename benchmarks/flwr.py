"""`flwr` commands of the benchmark, without their output."""

import re
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from bouquet.host.run import FLWR, QUIET, STARTED
from bouquet.settings.host import PROJECT


def flwr(environment: Mapping[str, str], *arguments: str, app: Path = PROJECT) -> str:
    """Run a `flwr` command in the app's folder; return what it printed.

    Raises
    ------
    RuntimeError
        It failed; with what it printed.
    """
    command = [str(FLWR), *arguments]
    done = subprocess.run(
        command,
        cwd=app,
        env={**environment, **QUIET},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def run_id(output: str) -> str:
    """Return the run id that `flwr run` printed."""
    match = STARTED.search(output)
    if match is None:
        raise RuntimeError(f"no run was started:\n{output}")
    return match[1]


def strategy_seconds(output: str) -> float:
    """Return how long the strategy took, as Flower's log says."""
    match = re.search(r"Strategy execution finished in ([\d.]+)s", output)
    if match is None:
        raise RuntimeError(f"the run did not finish:\n{output[-3000:]}")
    return float(match[1])


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, seconds: float = 120) -> None:
    """Wait until something listens on a port of 127.0.0.1; raise `TimeoutError` where nothing does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens on port {port} after {seconds:g} s")
