"""Newer `flwr` commands, which speak HTTP only, on the connection that the fleet's own `flwr` uses over gRPC."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bouquet.host.submission import QUIET
from tests.e2e.conftest import APPS, BIN, CONNECTION, Bouquet, StartFleet, printed_json, run_id

APP = str(APPS / "numpy_mean")
INSTALL_SECONDS = 300
COMMAND_SECONDS = 120

Flwr = Callable[..., str]


@pytest.fixture(scope="module")
def fleet(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """One node, as processes, with TLS and keys."""
    folder = tmp_path_factory.mktemp("newer")
    with start_fleet("processes", folder, SUPERNODES="1", EXECUTOR_PRELOAD="numpy") as fleet:
        yield fleet


def config(fleet: Bouquet) -> str:
    return (fleet.folder / "flwr" / "config.toml").read_text()


@pytest.fixture(scope="module")
def connection(fleet: Bouquet) -> str:
    """The connection as `bouquet up` wrote it."""
    return config(fleet)


@pytest.fixture(scope="module", params=["1.37.0", "1.42.0"])
def flwr(
    request: pytest.FixtureRequest, fleet: Bouquet, connection: str, tmp_path_factory: pytest.TempPathFactory
) -> Flwr:
    """Run a `flwr` command of a newer release, from an environment of its own; return what it printed."""
    environment = install(f"flwr=={request.param}", tmp_path_factory.mktemp("environment"))

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [environment / "bin" / "flwr", *arguments],
            env=fleet.environment | QUIET,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    return run


def install(package: str, folder: Path) -> Path:
    """Install a package from PyPI in a new environment; where PyPI does not answer, fail in CI and skip elsewhere."""
    environment = folder / "env"
    for command in (["venv", str(environment)], ["pip", "install", "--python", str(environment), package]):
        done = subprocess.run(
            [BIN / "uv", *command], cwd=folder, stderr=subprocess.PIPE, text=True, timeout=INSTALL_SECONDS
        )
        if done.returncode and os.environ.get("CI"):
            pytest.fail(done.stderr)
        if done.returncode:
            pytest.skip(f"PyPI does not answer: {done.stderr}")
    return environment


def test_a_run_is_submitted_and_its_log_streamed_and_read_again(fleet: Bouquet, flwr: Flwr) -> None:
    streamed = flwr("run", APP, CONNECTION, "--run-config", "nodes=1 num-server-rounds=2", "--stream")
    [report] = printed_json("numpy_mean", streamed)
    assert report["loss"] == pytest.approx(report["central-loss"])
    run = run_id(streamed)
    assert printed_json("numpy_mean", flwr("log", run, CONNECTION)) == [report]
    assert printed_json("numpy_mean", flwr("log", run, CONNECTION, "--show")) == [report]
    listed = {str(row["run-id"]): row for row in json.loads(flwr("ls", CONNECTION, "--format", "json"))["runs"]}
    assert listed[run]["status"] == "finished:completed"
    assert fleet.runs().keys() == listed.keys()


def test_a_run_is_stopped(fleet: Bouquet, flwr: Flwr) -> None:
    run = run_id(flwr("run", APP, CONNECTION, "--run-config", "nodes=1 num-server-rounds=1000000"))
    flwr("stop", run, CONNECTION)
    assert fleet.runs()[run]["status"] == "finished:stopped"


def test_the_nodes_are_listed(fleet: Bouquet, flwr: Flwr) -> None:
    [node] = json.loads(flwr("supernode", "list", CONNECTION, "--format", "json"))["nodes"]
    assert node["status"] == "online"


def test_an_error_of_the_superlink_is_shown(fleet: Bouquet, flwr: Flwr) -> None:
    assert "Run ID not found" in flwr("log", "1", CONNECTION, code=1)


def test_nobody_was_refused_and_the_connection_is_unchanged(fleet: Bouquet, connection: str, flwr: Flwr) -> None:
    assert config(fleet) == connection
    log = fleet.process_log("superlink")
    assert "refused" not in log
    assert "ALPN" not in log
