"""Compatibility with stock Flower: its SuperNode joins our SuperLink and ours joins its, and both executors agree."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import keras
import numpy as np
import pytest
from pyarrow import parquet  # type: ignore[import-untyped]

from tests.e2e.conftest import APPS, BIN, PROJECT, StartFleet, free_port, printed_json, wait_until

SAMPLE = PROJECT / "data" / "cifar10-sample"
START_SECONDS = 120


@contextmanager
def started(folder: Path, command: list[str], **settings: str) -> Iterator[Path]:
    """A process of the fleet; yields its log, and ends it and what it started."""
    log = folder / f"{settings['ROLE']}.log"
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "EXECUTOR_PRELOAD": "json",
        "BOUQUET_RUN_DIR": str(folder / f"run-{settings['ROLE']}"),
        "BOUQUET_STATE_DIR": str(folder / "state"),
        "BOUQUET_RESULTS_DIR": str(folder / "results"),
        "BOUQUET_LEASE_DIR": str(folder / "leases"),
        "SUPERNODES": "1",
        "INSECURE": "1",  # stock Flower has no certificates of its own
        **settings,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield log
    finally:
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(log: Path, text: str) -> None:
    wait_until(lambda: text in log.read_text(errors="replace"), f"{text!r} in {log.name}", START_SECONDS)


@pytest.mark.parametrize(
    ("superlink", "supernode"), [("ours", "stock"), ("stock", "ours")], ids=["stock-supernode", "stock-superlink"]
)
def test_stock_flower_and_ours_work_together(superlink: str, supernode: str, tmp_path: Path) -> None:
    fleet_port, control_port = free_port(), free_port()
    fleet, control = f"127.0.0.1:{fleet_port}", f"127.0.0.1:{control_port}"
    superlinks = {
        "ours": [sys.executable, "-P", "-m", "bouquet.superlink"],
        "stock": [
            *(str(BIN / "flower-superlink"), "--insecure", "--disable-runtime-dependency-installation"),
            *("--fleet-api-address", fleet, "--control-api-address", control),
            *("--serverappio-api-address", "127.0.0.1:0"),
        ],
    }
    supernodes = {
        "ours": [sys.executable, "-P", "-m", "bouquet.node"],
        "stock": [
            *(str(BIN / "flower-supernode"), "--insecure", "--superlink", fleet),
            *("--clientappio-api-address", "127.0.0.1:0"),
        ],
    }
    addresses = {
        "FLEET_ADDRESS": fleet,
        "CONTROL_ADDRESS": control,
        "SUPERLINK": fleet,
        "RUNTIME_ADDRESS": "127.0.0.1:0",
    }
    (tmp_path / "flwr").mkdir()
    (tmp_path / "flwr" / "config.toml").write_text(f'[superlink.mixed]\naddress = "{control}"\ninsecure = true\n')
    with ExitStack() as processes:
        log = processes.enter_context(started(tmp_path, superlinks[superlink], ROLE="superlink", **addresses))
        wait_for(log, "Starting Fleet API")
        log = processes.enter_context(started(tmp_path, supernodes[supernode], ROLE="supernode", **addresses))
        wait_for(log, "SuperNode ID")
        run = subprocess.run(
            [str(BIN / "flwr"), "run", str(APPS / "noop"), "mixed", "--stream", "--run-config", "nodes=1 trips=2"],
            env={**os.environ, "FLWR_HOME": str(tmp_path / "flwr")},
            capture_output=True,
            text=True,
            timeout=300,
        )
    (figures,) = printed_json("noop", run.stdout)
    assert figures["one"]["nodes"] == 1


def test_the_warm_and_the_stock_executor_train_the_same_weights(start_fleet: StartFleet, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    (dataset / "plain_text").mkdir(parents=True)
    (dataset / "README.md").write_text((SAMPLE / "README.md").read_text())
    for split, rows in (("train", 400), ("test", 100)):
        name = f"plain_text/{split}-00000-of-00001.parquet"
        parquet.write_table(parquet.read_table(SAMPLE / name).slice(0, rows), dataset / name)
    weights = {}
    for executor in ("warm", "stock"):
        folder = tmp_path / executor
        folder.mkdir()
        settings = {"EXECUTOR": executor, "SUPERNODES": "2", "EXECUTOR_PRELOAD": "json", "DATASET": str(dataset)}
        with start_fleet("processes", folder, up=False, **settings) as fleet:
            run = fleet("run", RUN_CONFIG="num-server-rounds=1 fraction-train=1.0")
            assert run.returncode == 0, run.stdout + run.stderr
            assert fleet("results").returncode == 0
        results = fleet.results / {"warm": "latest", "stock": "stock"}[executor]
        weights[executor] = keras.models.load_model(results / "final_model.keras").get_weights()
    for warm, stock in zip(weights["warm"], weights["stock"], strict=True):
        np.testing.assert_allclose(warm, stock, atol=1e-5)
