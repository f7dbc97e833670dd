"""Two checkouts on one Docker: neither touches the containers of the other, and both can run side by side."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import Bouquet, StartFleet, copy_checkout, printed_json, run_id

SMALL = {"SUPERNODES": "2", "EXECUTOR_PRELOAD": "flwr"}
FLEET_ERROR = 4


@pytest.fixture(scope="module")
def first(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    with start_fleet("containers", tmp_path_factory.mktemp("first"), **SMALL) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def other_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("other checkout"))


def containers(fleet: Bouquet) -> dict[str, str]:
    """The name and the start of each container of the fleet's project, whatever checkout it belongs to."""
    command = ["docker", "ps", "--all", "--no-trunc", "--format", "{{json .}}"]
    listed = subprocess.check_output([*command, "--filter", f"label=com.docker.compose.project={fleet.project}"])
    return {row["ID"]: row["CreatedAt"] + row["State"] for row in map(json.loads, listed.splitlines())}


def test_a_second_checkout_without_settings_of_its_own_is_refused_and_changes_nothing(
    first: Bouquet, other_checkout: Path, tmp_path: Path
) -> None:
    same_names = {**SMALL, "COMPOSE_PROJECT_NAME": first.project, "TAG": "bouquet-test-never-built"}
    second = Bouquet("containers", tmp_path, same_names, other_checkout)
    before = containers(first)
    for command in ("up", "run", "status", "results", "down"):
        refusal = second(command)
        assert refusal.returncode == FLEET_ERROR, refusal.stdout + refusal.stderr
        (line,) = refusal.stderr.splitlines()
        assert f"COMPOSE_PROJECT_NAME={first.project}: its containers belong to another checkout" in line
        assert str(first.checkout) in line
    assert containers(first) == before


def test_two_checkouts_with_names_and_ports_of_their_own_run_side_by_side(
    first: Bouquet, other_checkout: Path, tmp_path: Path, start_fleet: StartFleet
) -> None:
    with start_fleet("containers", tmp_path, checkout=other_checkout, **SMALL) as second, ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(fleet.submit, "numpy_mean", "--stream", num_server_rounds=5, nodes=2)
            for fleet in (first, second)
        ]
        outputs = [run.result() for run in runs]
        for fleet, output in zip((first, second), outputs, strict=True):
            assert fleet.runs()[run_id(output)]["status"] == "finished:completed", output
            (found,) = printed_json("numpy_mean", output)
            assert found["weights"] == pytest.approx(found["central-weights"], rel=1e-9)
            assert len(fleet.runs()) == 1


def test_the_override_file_of_compose_means_the_same_to_make_and_to_compose(
    first: Bouquet, other_checkout: Path, tmp_path: Path, start_fleet: StartFleet
) -> None:
    override = "services:\n  supernode:\n    environment: {SITE: north}\n"
    (other_checkout / "docker-compose.override.yml").write_text(override)
    with start_fleet("containers", tmp_path, checkout=other_checkout, **SMALL | {"SUPERNODES": "1"}) as fleet:
        (supernode,) = fleet.compose.ps(["supernode"])
        assert "SITE=north" in (supernode.config.env or [])
        before = containers(fleet)
        command = ["docker", "compose", "up", "--detach", "--wait"]
        subprocess.run(command, cwd=fleet.checkout, env=fleet.environment, check=True, capture_output=True)
        assert containers(fleet) == before
