"""`bouquet run` on a fleet of one, as processes: Ctrl-C, and another fleet that rewrites the connection meanwhile."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bouquet.contract.tls_files import CA
from bouquet.flower.control_client import ControlClient
from tests.e2e.conftest import APPS, PROJECT, Bouquet, StartFleet, free_port, run_id, wait_until

ROUND_TWO = '"round": 2'


@pytest.fixture(scope="module")
def fleet(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    settings = {"SUPERNODES": "1", "EXECUTOR_PRELOAD": "numpy"}
    with start_fleet("processes", tmp_path_factory.mktemp("run"), **settings) as fleet:
        yield fleet


class Terminal:
    """A `bouquet` command in a process group of its own, as a terminal has it."""

    def __init__(self, fleet: Bouquet, output: Path, **settings: str) -> None:
        self.output = output
        self.process = subprocess.Popen(
            # A test that runs in the background may have been told to ignore SIGINT.
            ["env", "--default-signal=INT", sys.executable, "-m", "bouquet.host", "run", str(APPS / "faulty")],
            cwd=PROJECT,
            env=fleet.environment | settings,
            stdout=output.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def shown(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.shown, f"no {text}", 180, lambda: self.shown)

    def send(self, number: int) -> None:
        """Send a signal to the command and all of its children, as a terminal does."""
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        return self.process.wait(300)


def start_run(fleet: Bouquet, tmp_path: Path) -> Terminal:
    """Start a run of minutes; return when it has begun."""
    terminal = Terminal(fleet, tmp_path / "output", RUN_CONFIG="rounds=1000 pause=0.3")
    terminal.wait_for(ROUND_TWO)
    return terminal


def test_after_ctrl_c_the_run_continues_and_the_line_stops_it(fleet: Bouquet, tmp_path: Path) -> None:
    terminal = start_run(fleet, tmp_path)
    terminal.send(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.shown
    run = run_id(terminal.shown)
    assert fleet.runs()[run]["status"] == "running"
    found = re.search(rf"^bouquet: run {run} continues; stop it with: (.*), or press Ctrl-C", terminal.shown, re.M)
    assert found is not None, terminal.shown
    subprocess.run(found[1], shell=True, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    assert fleet.runs()[run]["status"] == "finished:stopped"


def test_a_second_ctrl_c_stops_the_run(fleet: Bouquet, tmp_path: Path) -> None:
    terminal = start_run(fleet, tmp_path)
    terminal.send(signal.SIGINT)
    terminal.wait_for("press Ctrl-C again")
    terminal.send(signal.SIGINT)
    assert terminal.end() == 130
    run = run_id(terminal.shown)
    assert terminal.shown.endswith(f"bouquet: run {run} was stopped; the fleet stays up\n")
    assert fleet.runs()[run]["status"] == "finished:stopped"


def test_after_sigterm_the_run_continues(fleet: Bouquet, tmp_path: Path) -> None:
    terminal = start_run(fleet, tmp_path)
    terminal.send(signal.SIGTERM)
    assert terminal.end() == 143
    run = run_id(terminal.shown)
    assert fleet.runs()[run]["status"] == "running"
    assert "Traceback" not in terminal.shown
    fleet.flwr("stop", run, "local-deployment")


def test_the_outcome_comes_from_the_fleet_that_accepted_the_run(
    fleet: Bouquet, start_fleet: StartFleet, tmp_path: Path
) -> None:
    terminal = start_run(fleet, tmp_path)
    run = run_id(terminal.shown)
    other = {"SUPERNODES": "1", "EXECUTOR_PRELOAD": "numpy", "FLWR_HOME": fleet.environment["FLWR_HOME"]}
    with start_fleet("processes", tmp_path / "other", **other) as rewriting:
        config = (Path(fleet.environment["FLWR_HOME"]) / "config.toml").read_text()
        assert rewriting.environment["CONTROL_PORT"] in config
        assert "flwr does not reach this fleet" in fleet("status").stdout
        ca = (Path(fleet.environment["BOUQUET_HOME"]) / "processes" / "identities" / CA).read_bytes()
        with ControlClient(f"127.0.0.1:{fleet.environment['CONTROL_PORT']}", ca) as control:
            control.stop_run(int(run), 60)
        assert terminal.end() == 5
        assert f"bouquet: error: run {run} ended as finished:stopped" in terminal.shown
        assert "is not this fleet's: its address is" in fleet("connection").stdout
    assert "flwr does not reach" not in fleet("status").stdout


def test_a_connection_without_tls_that_flwr_has_moved_from_an_old_app_is_named(fleet: Bouquet, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    head = '\n[tool.flwr.federations]\ndefault = "local-deployment"\n[tool.flwr.federations.local-deployment]\n'
    table = f'address = "127.0.0.1:{fleet.environment["CONTROL_PORT"]}"\ninsecure = true\n'
    (app / "pyproject.toml").write_text((APPS / "noop" / "pyproject.toml").read_text() + head + table)
    (app / "noop").symlink_to(APPS / "noop" / "noop")
    assert fleet.try_flwr("run", str(app), "local-deployment").returncode != 0
    status = fleet("status").stdout
    assert "the SuperLink counts 1 SuperNodes as online" in status
    assert "it is without TLS, this fleet has TLS; write it again: make connection (bouquet connection)" in status
    assert "is not this fleet's: it is without TLS" in fleet("up").stdout
    assert "flwr does not reach" not in fleet("status").stdout


@pytest.mark.parametrize("run_config", ["rounds = 1", "rounds: 1", "rounds=1 # no"])
def test_run_config_that_flower_ignores_is_refused_before_anything_starts(
    run_config: str, start_fleet: StartFleet, tmp_path: Path
) -> None:
    with start_fleet("processes", tmp_path, up=False, CONTROL_PORT=str(free_port())) as fleet:
        terminal = Terminal(fleet, tmp_path / "output", RUN_CONFIG=run_config)
        assert terminal.end() == 2
        assert re.fullmatch(rf"bouquet: error: RUN_CONFIG={run_config}: Flower would ignore `.*\n", terminal.shown)
        assert not (tmp_path / "bouquet").exists()


def test_a_terminal_that_is_not_utf_8_changes_nothing(fleet: Bouquet, tmp_path: Path) -> None:
    locale = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    terminal = Terminal(fleet, tmp_path / "output", RUN_CONFIG="rounds=1", **locale)
    assert terminal.end() == 0
    assert '"round": 1' in terminal.shown
    assert "Traceback" not in terminal.shown
    assert "interrupted" not in terminal.shown
