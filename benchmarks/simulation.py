"""Flower's simulation of the same app, on a SuperLink that the benchmark starts."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.flwr_command import free_port, run_flwr, wait_for_port

BIN = Path(sys.executable).parent


@contextmanager
def simulation(folder: Path, supernodes: int, dataset: Path) -> Iterator[dict[str, str]]:
    """Start a SuperLink for simulations; yield the environment in which `flwr run . local` reaches it.

    Args:
        folder: Folder for everything that the simulation writes.
        supernodes: Number of virtual nodes.
        dataset: The dataset.
    """
    port = free_port()
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_LOCAL_CONTROL_API_PORT": str(port),
        "BOUQUET_DATASET": str(dataset),
        "BOUQUET_CACHE_DIR": str(folder / "cache"),
        # Ray starts Python by a shell command, and does not quote a path with a space.
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"py_executable": shlex.quote(sys.executable)}}),
    }
    command = [
        *(str(BIN / "flower-superlink"), "--insecure", "--simulation", "--disable-runtime-dependency-installation"),
        *("--control-api-address", f"127.0.0.1:{port}", "--serverappio-api-address", "127.0.0.1:0"),
    ]
    with (folder / "simulation.log").open("w") as log:
        superlink = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for_port(port)
        nodes = str(supernodes)
        run_flwr(environment, "federation", "simulation-config", "@none/default", "local", "--num-supernodes", nodes)
        yield environment
    finally:
        with suppress(ProcessLookupError):
            os.killpg(superlink.pid, signal.SIGTERM)
        superlink.wait(30)
        time.sleep(2)  # until Ray's processes have exited too
