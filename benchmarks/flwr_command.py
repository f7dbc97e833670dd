"""Runs `flwr` commands for the benchmark and parses their output."""

import re
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from bouquet.host.submission import FLWR, QUIET, STARTED
from bouquet.settings.host import PROJECT


def run_flwr(environment: Mapping[str, str], *arguments: str, app: Path = PROJECT) -> str:
    """Return the output of a `flwr` command, stdout and stderr together.

    Args:
        environment: Environment of the command.
        *arguments: Its arguments, for example ``"run", "."``.
        app: Folder of the app, in which the command runs.

    Raises:
        RuntimeError: The command failed; the message has its output.
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
        raise RuntimeError(f"{' '.join(command)} exited with code {done.returncode}:\n{done.stdout}")
    return done.stdout


def run_id(output: str) -> str:
    """Return the run id that `flwr run` printed.

    Args:
        output: Output of `flwr run`.

    Raises:
        RuntimeError: The run was rejected; the message has the output.
    """
    match = STARTED.search(output)
    if match is None:
        raise RuntimeError(f"the run was rejected:\n{output}")
    return match[1]


def strategy_seconds(output: str) -> float:
    """Return the strategy's duration from Flower's log, in seconds.

    Args:
        output: Output of `flwr run --stream`.

    Raises:
        RuntimeError: The run did not finish; the message has the end of the output.
    """
    match = re.search(r"Strategy execution finished in ([\d.]+)s", output)
    if match is None:
        raise RuntimeError(f"the run did not finish:\n{output[-3000:]}")
    return float(match[1])


def final_accuracy(output: str) -> float:
    """Return the accuracy of the last evaluation from Flower's log, from 0 to 1.

    Args:
        output: Output of `flwr run --stream`.

    Raises:
        RuntimeError: The run evaluated nothing; the message has the end of the output.
    """
    found = re.findall(r"'eval_acc': '?([\d.e+-]+)", output)
    if not found:
        raise RuntimeError(f"the run has no eval_acc:\n{output[-3000:]}")
    return float(found[-1])


def free_port() -> int:
    """Return a port on 127.0.0.1 that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, seconds: float = 120) -> None:
    """Wait until a process listens on a port of 127.0.0.1.

    Args:
        port: The port.
        seconds: How long to wait, in seconds.

    Raises:
        TimeoutError: No process listens on the port after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"no process listens on port {port} after {seconds:g} s")
