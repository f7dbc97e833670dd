"""Apps whose packages are called like parts of this project train all the same, on containers and on processes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import APPS, Bouquet, StartFleet, printed_json, run_id

TEMPLATE = "numpy_mean"


@pytest.fixture(scope="module", params=["processes", "containers"])
def fleet(
    request: pytest.FixtureRequest, start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bouquet]:
    """Two nodes that preload Flower only."""
    folder = tmp_path_factory.mktemp(f"names-{request.param}")
    with start_fleet(request.param, folder, SUPERNODES="2", EXECUTOR_PRELOAD="flwr") as fleet:
        yield fleet


def app_with_package(name: str, folder: Path) -> Path:
    """Copy a test app, and rename its package."""
    app = folder / f"an-app-with-{name}"
    shutil.copytree(APPS / TEMPLATE, app, ignore=shutil.ignore_patterns("__pycache__"))
    (app / TEMPLATE).rename(app / name)
    for file in (app / "pyproject.toml", *(app / name).glob("*.py")):
        text = file.read_text().replace(f"{TEMPLATE}.", f"{name}.").replace("from .task", f"from {name}.task")
        file.write_text(text)
    return app


@pytest.mark.parametrize("name", ["deploy", "app", "tests", "benchmarks"])
def test_an_app_may_call_its_package_as_it_likes(fleet: Bouquet, name: str, tmp_path: Path) -> None:
    output = fleet.submit(app_with_package(name, tmp_path), "--stream", num_server_rounds=2, nodes=2)
    assert fleet.runs()[run_id(output)]["status"] == "finished:completed", output
    (found,) = printed_json(TEMPLATE, output)
    assert found["weights"] == pytest.approx(found["central-weights"], rel=1e-9)
