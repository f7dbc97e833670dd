"""Flower's own quickstart, unmodified and with one command.

`flwr new` writes it: 1.24 is the last release that has the templates in its package; later ones ask Flower's hub. The
templates of other frameworks do not run with today's `datasets`. Those in Flower's repository do, which tests cannot
reach: CONTRIBUTING.md says how to run them.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import BIN, BOUQUET, COMMAND_SECONDS, Bouquet, StartFleet, run_id

FLWR_NEW = ("tool", "run", "--from", "flwr==1.24.0", "flwr", "new")
NODES = 2


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of quickstart-numpy, as `flwr new` has written it."""
    folder = tmp_path_factory.mktemp("apps")
    options = ["quickstart-numpy", "--framework", "numpy", "--username", "me"]
    subprocess.run([str(BIN / "uv"), *FLWR_NEW, *options], cwd=folder, check=True, timeout=COMMAND_SECONDS)
    return folder / "quickstart-numpy"


@pytest.fixture(scope="module", params=["processes", "containers"])
def fleet(
    request: pytest.FixtureRequest, start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bouquet]:
    with start_fleet(request.param, tmp_path_factory.mktemp("fleet"), up=False, SUPERNODES=str(NODES)) as fleet:
        yield fleet


def run(fleet: Bouquet, app: Path) -> str:
    """Run an app to its end, which must be a good one, and return what `bouquet run` printed."""
    done = subprocess.run(
        [str(BOUQUET), "run", str(app)],
        cwd=app,
        env=fleet.environment,
        text=True,
        capture_output=True,
        timeout=COMMAND_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_it_runs_with_one_command_and_its_results_are_here(fleet: Bouquet, quickstart: Path) -> None:
    output = run(fleet, quickstart)
    folder = fleet.results / run_id(output)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["status"] == "completed"
    for each in metrics["rounds"]:
        assert each["train"]["replies"] == each["evaluate"]["replies"] == NODES
    assert [each["round"] for each in metrics["rounds"]] == [1, 2, 3]
    assert len(np.load(folder / "final_model.npz").files) > 0
    for name in ("final_model.npz", "history.png", "metrics.json"):
        assert f"\n  {name} " in output


def test_an_edit_of_its_code_is_in_the_next_run(fleet: Bouquet, quickstart: Path) -> None:
    source = quickstart / "quickstart_numpy" / "server_app.py"
    source.write_text(source.read_text() + '\nprint("this is the edited app")\n')
    assert "this is the edited app" in run(fleet, quickstart)
