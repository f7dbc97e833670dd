"""The app in Flower's own simulation: `flwr run . local`, ten virtual nodes, without the package `bouquet`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import BIN, PROJECT, free_port, wait_until

SAMPLE = PROJECT / "data" / "cifar10-sample"
NODES = 10
START_SECONDS = 120
RUN_SECONDS = 600  # takes half a minute on an idle machine
RAY_STARTS = 3
RAY_DID_NOT_START = re.compile(r"Timed out waiting for file \S*/ray/session|node timed out during startup")


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The test's own local SuperLink, and the environment that makes `flwr run . local` find it.

    `flwr run . local` starts one by itself where none answers, but leaves it running, and it would install the
    app's dependencies again for every run.
    """
    port = str(free_port())
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_LOCAL_CONTROL_API_PORT": port,
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_OFFLINE": "1",
        "BOUQUET_DATASET_FALLBACK": str(SAMPLE),
        "BOUQUET_CACHE_DIR": str(tmp_path / "cache"),
        # Ray starts Python by a shell command, and does not quote a path with a space.
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"py_executable": shlex.quote(sys.executable)}}),
    }
    log = tmp_path / "superlink.log"
    command = [
        *(str(BIN / "flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"),
        *("--control-api-address", f"127.0.0.1:{port}", "--serverappio-api-address", "127.0.0.1:0"),
        "--disable-runtime-dependency-installation",
    ]
    with log.open("w") as output:
        superlink = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_for(port, superlink, log)
        yield environment
    finally:
        print(log.read_text(errors="replace")[-20_000:])
        _stop(superlink)


def _wait_for(port: str, superlink: subprocess.Popen[bytes], log: Path) -> None:
    def listens() -> bool:
        assert superlink.poll() is None, f"the SuperLink ended:\n{log.read_text(errors='replace')}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(port))) == 0

    wait_until(listens, f"a SuperLink on port {port}", START_SECONDS)


def _stop(superlink: subprocess.Popen[bytes]) -> None:
    """End the SuperLink and its descendants: some of them lead sessions of their own and outlive it."""
    descendants = psutil.Process(superlink.pid).children(recursive=True)
    superlink.terminate()
    try:
        superlink.wait(timeout=20)
    except subprocess.TimeoutExpired:
        superlink.kill()
        superlink.wait()
    for process in descendants:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(descendants, timeout=1)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _flwr(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        ["flwr", *arguments],
        cwd=PROJECT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=RUN_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _run(environment: dict[str, str], run_config: str) -> str:
    """Run the app, and return its log.

    Ray now and then fails to start one of its own processes within 30 s, before it has started any node. That says
    nothing about the app, so the run is repeated.
    """
    for _ in range(RAY_STARTS):
        log = _flwr(environment, "run", ".", "local", "--stream", "--run-config", run_config)
        if not RAY_DID_NOT_START.search(log):
            break
    return log


def _status(environment: dict[str, str]) -> dict[str, str]:
    """Return the newest run as `flwr ls` tells it."""
    listed = _flwr(environment, "ls", "local", "--format", "json")
    run: dict[str, str] = json.loads(listed[listed.index("{") :])["runs"][0]
    return run


def test_ten_virtual_nodes_train_and_leave_results(environment: dict[str, str], tmp_path: Path) -> None:
    _flwr(environment, "federation", "simulation-config", "@none/default", "local", "--num-supernodes", str(NODES))
    config = "num-server-rounds=1 fraction-train=0.2 batch-size=64 central-evaluation='final'"
    log = _run(environment, config + " partitioner='dirichlet' alpha=9")
    assert "configure_train: Sampled 2 nodes (out of 10)" in log, log
    assert "configure_evaluate: Sampled 10 nodes (out of 10)" in log, log
    assert "aggregate_train: Received 2 results and 0 failures" in log, log
    assert "aggregate_evaluate: Received 10 results and 0 failures" in log, log
    assert "Dataset: sample (10,000 train and 2,000 test images" in log, log
    assert re.search(r"ServerApp-side Evaluate Metrics:.*{1: {'eval_acc'", log, re.DOTALL), log
    assert _status(environment)["status"] == "finished:completed"
    # In the folder in which the SuperLink was started.
    assert {"final_model.keras", "label_counts.png"} <= {file.name for file in tmp_path.iterdir()}
