"""The commands refuse what cannot work before anything starts: one line, and an exit code that is not 0."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT, Bouquet, StartFleet, free_port, wait_until


@pytest.fixture
def command(start_fleet: StartFleet, tmp_path: Path) -> Iterator[Bouquet]:
    with start_fleet("processes", tmp_path, up=False) as fleet:
        yield fleet


def refused(command: Bouquet, exit_code: int, **settings: str) -> str:
    """Run `make run`'s command, which must be refused; return its one line."""
    run = command("run", **settings)
    assert run.returncode == exit_code, run.stdout + run.stderr
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("bouquet: error: ")
    return line.removeprefix("bouquet: error: ")


@pytest.mark.parametrize("value", ["0", "-1", "ten"])
def test_an_impossible_number_of_supernodes(command: Bouquet, value: str) -> None:
    line = refused(command, 2, SUPERNODES=value)
    assert line.startswith(f"SUPERNODES={value}: ")
    assert "for example SUPERNODES=10" in line


def test_a_dataset_folder_that_is_not_there(command: Bouquet) -> None:
    assert refused(command, 2, DATASET="/no/such/folder").startswith(
        "DATASET=/no/such/folder: there is no such folder; "
    )


def test_a_port_in_use(command: Bouquet) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused(command, 2, CONTROL_PORT=port)
    assert line.startswith(f"CONTROL_PORT={port}: ")
    assert "give another: CONTROL_PORT=" in line


def test_a_flower_home_that_is_no_toml_stays_as_it_was(command: Bouquet, tmp_path: Path) -> None:
    home = tmp_path / "flwr"
    home.mkdir()
    (home / "config.toml").write_text("[superlink\n")
    connection = command("connection")
    assert connection.returncode == 2
    assert "config.toml is not TOML" in connection.stderr
    assert (home / "config.toml").read_text() == "[superlink\n"


@dataclass
class SuperNode:
    """A SuperNode's entry point by itself; its log in a file, which children may hold open after it."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def output_after(self, seconds: float = 60) -> str:
        """Wait for its end, and return what it printed."""
        self.process.wait(seconds)
        return self.log.read_text()


@pytest.fixture
def supernode(tmp_path: Path) -> Iterator[Callable[..., SuperNode]]:
    started: list[SuperNode] = []

    def start(**settings: str) -> SuperNode:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "BOUQUET_LEASE_DIR": str(tmp_path / "leases"),
            "BOUQUET_RUN_DIR": str(tmp_path / f"run-{len(started)}"),
            "RUNTIME_ADDRESS": "127.0.0.1:0",
            "SUPERNODES": "2",
            "INSECURE": "1",
            "SUPERLINK": f"127.0.0.1:{free_port()}",
            **settings,
        }
        log = tmp_path / f"supernode-{len(started)}.log"
        command = [sys.executable, "-P", "-m", "bouquet.node"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=output, stderr=output)
        started.append(SuperNode(process, log))
        return started[-1]

    yield start
    for node in started:
        node.process.kill()
        node.process.wait()


def test_an_unreachable_superlink_is_tried_for_as_long_as_set_and_then_named(
    supernode: Callable[..., SuperNode],
) -> None:
    node = supernode(SUPERLINK_MAX_WAIT="3")
    output = node.output_after()
    assert "retrying in" in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("bouquet: error: SUPERLINK=127.0.0.1:")
    assert "SUPERLINK_MAX_WAIT" in last
    assert node.process.returncode == 4


def test_a_partition_id_taken_twice_is_refused_while_its_holder_lives(supernode: Callable[..., SuperNode]) -> None:
    holder = supernode(PARTITION_ID="1")
    wait_until(lambda: "Starting Flower SuperNode" in holder.log.read_text(), "the first SuperNode starts", 60)
    second = supernode(PARTITION_ID="1")
    assert second.output_after().startswith("bouquet: error: PARTITION_ID=1: taken by the SuperNode on ")
    assert second.process.returncode == 2
    assert holder.process.poll() is None


@pytest.mark.parametrize("value", ["-1", "2"])
def test_a_partition_id_outside_the_fleet(supernode: Callable[..., SuperNode], value: str) -> None:
    node = supernode(PARTITION_ID=value)
    assert node.output_after().strip() == (
        f"bouquet: error: PARTITION_ID={value}: out of range; "
        "give a whole number from 0 to 1, for example PARTITION_ID=0"
    )
    assert node.process.returncode == 2
