"""`bouquet run PATH` with apps of other packages than the shipped app's: packages, results, and two apps at a time."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np

from tests.e2e.conftest import APPS, BOUQUET, COMMAND_SECONDS, Bouquet, printed_json, run_id

NODES = "2"
MANY_ROUNDS = 1_000_000


def run_app(bouquet: Bouquet, app: Path | str, run_config: str) -> "subprocess.CompletedProcess[str]":
    """Run an app as a user does, from a folder that is not the checkout."""
    return subprocess.run(
        [BOUQUET, "run", str(app), "--run-config", run_config],
        cwd=APPS,
        env=bouquet.environment | {"SUPERNODES": NODES},
        text=True,
        capture_output=True,
        timeout=COMMAND_SECONDS,
    )


def table(output: str, first: str) -> list[dict[str, str]]:
    """Return the rows of the table whose header starts with a word, by heading."""
    header, *rest = output[re.search(rf"^ *{first}  ", output, re.MULTILINE).start() :].splitlines()  # type: ignore[union-attr]
    names = re.split(" {2,}", header.strip())
    rows = [re.split(" {2,}", line.strip()) for line in rest[: rest.index("")]]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_an_app_gets_its_packages_and_shows_its_own_metrics(bouquet: Bouquet) -> None:
    run = run_app(bouquet, "sklearn_logistic", f"nodes={NODES} num-server-rounds=2")
    assert run.returncode == 0, run.stdout + run.stderr
    [report] = printed_json("sklearn_logistic", run.stdout)
    rows = [row for row in table(run.stdout, "round") if row["round"] != "0"]
    assert [row["round"] for row in rows] == ["1", "2"]
    assert {row["trained"] for row in rows} == {"2 of 2"}
    assert [row["central accuracy"] for row in rows] == [f"{value:.4f}" for value in report["accuracy"][-2:]]
    assert "\n  history.png " in run.stdout


def test_the_next_app_gets_its_own_packages_and_its_files_are_results(bouquet: Bouquet) -> None:
    run = run_app(bouquet, "numpy_mean", f"nodes={NODES} num-server-rounds=3")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "\n  weights.npy " in run.stdout
    [report] = printed_json("numpy_mean", run.stdout)
    assert np.load(bouquet.results / run_id(run.stdout) / "weights.npy").tolist() == report["weights"]


def test_during_a_run_other_packages_are_refused_and_the_same_ones_run_beside_it(bouquet: Bouquet) -> None:
    busy = run_id(bouquet.submit("numpy_mean", nodes=int(NODES), num_server_rounds=MANY_ROUNDS))
    refused = run_app(bouquet, "sklearn_logistic", "num-server-rounds=1")
    assert refused.returncode == 4
    assert f"and run {busy} is in progress on it; wait for the run, or stop it: " in refused.stderr
    second = "BOUQUET_HOME=" if bouquet.kind == "processes" else "COMPOSE_PROJECT_NAME="
    assert re.search(rf"start a second fleet: {second}\S+ CONTROL_PORT=\d+ FLEET_PORT=\d+;", refused.stderr)
    beside = run_app(bouquet, "numpy_mean", f"nodes={NODES} num-server-rounds=1")
    assert beside.returncode == 0, beside.stdout + beside.stderr
    assert bouquet.runs()[busy]["status"] == "running"
    bouquet.flwr("stop", busy, "local-deployment")


def test_a_package_that_the_app_does_not_list_is_named_with_what_to_do(bouquet: Bouquet, tmp_path: Path) -> None:
    for part in ("server", "client"):
        app = tmp_path / part / "numpy_mean"
        shutil.copytree(APPS / "numpy_mean", app, ignore=shutil.ignore_patterns("__pycache__"))
        source = app / "numpy_mean" / f"{part}_app.py"
        source.write_text("import no_such_package\n" + source.read_text())
        run = run_app(bouquet, app, f"nodes={NODES} num-server-rounds=1")
        assert run.returncode == 5, run.stdout + run.stderr
        last = run.stderr.strip().splitlines()[-1]
        assert "No module named 'no_such_package'; the fleet does not have it: add its package to " in last
        metrics = json.loads((bouquet.results / run_id(run.stdout) / "metrics.json").read_text())
        assert metrics["status"] == "failed"
