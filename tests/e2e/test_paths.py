"""The whole way from `make` to results where every path has spaces and accents, under the strictest umask."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, CONNECTION, PROJECT, free_port, printed_json, run_id

Run = Callable[..., str]


def clone(folder: Path) -> None:
    """Copy the files that git tracks, as they are in the working tree, with the modes that the umask gives."""
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=PROJECT, text=True)
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((PROJECT / name).read_bytes())


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run a command in a checkout `.café/my fleet (2)`, with a HOME that has a space."""
    checkout, home = tmp_path / ".café" / "my fleet (2)", tmp_path / "home of é"
    home.mkdir()
    before = os.umask(0o077)
    try:
        clone(checkout)
    finally:
        os.umask(before)
    mine = ("MAKE", "BOUQUET_", "XDG_", "FLWR_", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(mine)} | {
        "HOME": str(home),
        "VENV": str(home),  # a folder of the user's
        "UV_CACHE_DIR": subprocess.check_output([BIN / "uv", "cache", "dir"], text=True).strip(),
        "UV_COMPILE_BYTECODE": "0",  # the test imports little
        "FLEET": "processes",
        "APP": "tests/apps/numpy_mean",
        "SUPERNODES": "2",
        "EXECUTOR_PRELOAD": "numpy",
        "CONTROL_PORT": str(free_port()),
        "FLEET_PORT": str(free_port()),
        "RESULTS": "~/my results",
        "GPUS": "none",
        "UP_TIMEOUT": "600",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command,
            cwd=checkout,
            env=environment,
            umask=0o077,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    try:
        yield run
    finally:
        if (checkout / ".venv").exists():
            run("make", "down")


def test_a_fleet_trains_where_paths_have_spaces_and_accents_under_umask_077(run: Run, tmp_path: Path) -> None:
    assert "2 SuperNodes are healthy" in run("make", "up")
    app, options = "tests/apps/numpy_mean", ("--run-config", "nodes=2 num-server-rounds=2", "--stream")
    output = run(".venv/bin/flwr", "run", app, CONNECTION, *options)
    (found,) = printed_json("numpy_mean", output)
    assert found["weights"] == pytest.approx(found["central-weights"], rel=1e-9)
    assert run_id(output)
    run("make", "results")
    home = tmp_path / "home of é"
    assert (home / "my results").is_dir()
    assert (home / ".flwr" / "config.toml").is_file()
    environment = (tmp_path / ".café" / "my fleet (2)" / ".venv").resolve()
    assert environment.is_relative_to(home / ".cache" / "bouquet")
