"""Flower's own quickstarts, unmodified and with one command each.

`flwr new` writes them: 1.24 is the last release that has their templates in its package; later ones ask Flower's hub.
Their datasets are small ones of the same shape, in a cache that `bouquet dataset` has filled. Not here, because their
packages take gigabytes: quickstart-pytorch and custom-mods, which have PyTorch.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import BIN, BOUQUET, COMMAND_SECONDS, PROJECT, Bouquet, StartFleet, run_id
from tests.hub_stub import serve_hub

FLWR_NEW = ("uv", "tool", "run", "--from", "flwr==1.24.0", "flwr", "new")
NODES = "2"
ROWS = 200
MODELS = {"numpy": "final_model.npz", "sklearn": "logreg_model.pkl", "xgboost": "final_model.json"}
MODELS |= {"tensorflow": "final_model.keras"}


def images(size: tuple[int, ...], column: str) -> dict[str, Any]:
    pixels = np.random.default_rng(1).integers(0, 256, (ROWS, *size), np.uint8)
    return {column: list(pixels), "label": [row % 10 for row in range(ROWS)]}


def higgs() -> dict[str, Any]:
    inputs = np.random.default_rng(1).normal(size=(ROWS, 28))
    return {"inputs": inputs.tolist(), "label": (inputs[:, 0] > 0).astype(float).tolist()}


DATASETS: dict[str, Callable[[], dict[str, Any]]] = {
    "ylecun/mnist": lambda: images((28, 28), "image"),
    "jxie/higgs": higgs,
    "uoft-cs/cifar10": lambda: images((32, 32, 3), "img"),
}


@pytest.fixture(scope="module")
def hub_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face cache with the datasets of the quickstarts."""
    from datasets import Dataset, Image

    folder = tmp_path_factory.mktemp("hub")
    for name, make in DATASETS.items():
        rows = Dataset.from_dict(values := make())
        for column in {"image", "img"} & set(values):
            rows = rows.cast_column(column, Image())
        file = folder / "train.parquet"
        rows.to_parquet(file)
        with serve_hub(name, {"data/train-0.parquet": file.read_bytes()}) as hub:
            environment = {"PATH": str(BIN), "HOME": str(folder / "home"), "HF_ENDPOINT": hub}
            subprocess.run(
                [BOUQUET, "dataset", name],
                cwd=PROJECT,
                env=environment | {"HF_CACHE": str(folder / "cache")},
                check=True,
                timeout=COMMAND_SECONDS,
            )
    return folder / "cache"


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the folder of a quickstart that `flwr new` has written."""

    def write(framework: str) -> Path:
        folder = tmp_path_factory.mktemp("apps")
        name = f"quickstart-{framework}"
        command = [str(BIN / FLWR_NEW[0]), *FLWR_NEW[1:], name, "--framework", framework, "--username", "me"]
        subprocess.run(command, cwd=folder, check=True, timeout=COMMAND_SECONDS)
        return folder / name

    return write


@pytest.fixture(scope="module")
def processes(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory, hub_cache: Path) -> Iterator[Bouquet]:
    folder = tmp_path_factory.mktemp("processes")
    with start_fleet("processes", folder, up=False, SUPERNODES=NODES, HF_CACHE=str(hub_cache)) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def containers(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory, hub_cache: Path) -> Iterator[Bouquet]:
    folder = tmp_path_factory.mktemp("containers")
    with start_fleet("containers", folder, up=False, SUPERNODES=NODES, HF_CACHE=str(hub_cache)) as fleet:
        yield fleet


def run(fleet: Bouquet, app: Path) -> str:
    """Run an app to its end, which must be a good one, and return what `bouquet run` printed."""
    command = [str(BOUQUET), "run", str(app)]
    done = subprocess.run(
        command, cwd=app, env=fleet.environment, text=True, capture_output=True, timeout=COMMAND_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def assert_results(fleet: Bouquet, output: str, framework: str) -> None:
    """All rounds are recorded, and the model is among the results that the command lists."""
    folder = fleet.results / run_id(output)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [each["train"]["replies"] for each in metrics["rounds"] if each["round"]] == [int(NODES)] * 3
    assert metrics["status"] == "completed"
    for name in (MODELS[framework], "history.png"):
        assert (folder / name).stat().st_size > 0
        assert f"\n  {name} " in output


@pytest.mark.parametrize("framework", MODELS)
def test_a_quickstart_runs_on_processes_with_one_command(
    processes: Bouquet, quickstart: Callable[[str], Path], framework: str
) -> None:
    assert_results(processes, run(processes, quickstart(framework)), framework)


def containers_of(fleet: Bouquet) -> dict[str, str]:
    """The ids of the fleet's containers and of their images, by name."""
    return {each.name: f"{each.id} {each.image}" for each in fleet.compose.ps()}


def test_after_an_edit_of_the_app_its_containers_and_images_stay(
    containers: Bouquet, quickstart: Callable[[str], Path]
) -> None:
    app = quickstart("sklearn")
    assert_results(containers, run(containers, app), "sklearn")
    started = containers_of(containers)
    assert len(started) == int(NODES) + 1
    source = app / "quickstart_sklearn" / "server_app.py"
    source.write_text(source.read_text() + '\nprint("edited")\n')
    output = run(containers, app)
    assert "edited" in output
    assert_results(containers, output, "sklearn")
    assert containers_of(containers) == started


def test_an_app_without_tensorflow_has_images_without_tensorflow(containers: Bouquet) -> None:
    look = ["python", "-c", "from importlib.util import find_spec; print(find_spec('tensorflow'), find_spec('keras'))"]
    assert containers.compose.execute("supernode", look, tty=False) == "None None"
