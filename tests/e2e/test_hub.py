"""Data of the hub without the hub, and the node config, in both kinds of fleet."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import BOUQUET, PROJECT, Bouquet, printed_json, run_id
from tests.hub_stub import make_parquet, serve_hub

ROWS = 24
NODES = {"SUPERNODES": "3", "EXECUTOR_PRELOAD": "flwr_datasets"}


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that `bouquet dataset` has filled from a hub of the test's own."""
    folder = tmp_path_factory.mktemp("brought")
    folder.chmod(0o755)  # the containers' user reads it
    with serve_hub("some/data", {"data/train-0.parquet": make_parquet(folder, ROWS)}) as hub:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        subprocess.run(
            [BOUQUET, "dataset", "some/data"],
            cwd=PROJECT,
            env={**environment, "HF_ENDPOINT": hub, "HF_CACHE": str(folder)},
            check=True,
        )
    return folder


@pytest.fixture(scope="module")
def offline(bouquet: Bouquet) -> Bouquet:
    """The fleet, whose processes try the hub, and whose containers have no way to name one that never answers."""
    if bouquet.kind == "processes":
        bouquet.environment |= {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": "http://127.0.0.1:9"}
        bouquet.environment |= {"HF_HOME": str(bouquet.folder / "no-cache")}
    bouquet.environment |= NODES
    return bouquet


def up(fleet: Bouquet, **settings: str) -> None:
    done = fleet("up", **settings)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_cache_nodes_and_server_name_the_dataset_and_the_command_at_once(offline: Bouquet) -> None:
    up(offline)
    output = offline.submit("hub_dataset", "--stream", nodes=3)
    (report,) = printed_json("hub_dataset", output)
    assert report["rows"] == []
    assert report["seconds"] < 20  # the libraries alone take 23 s or more
    reason = "127.0.0.1 cannot be reached" if offline.kind == "processes" else "HF_HUB_OFFLINE=1"
    for error in report["errors"]:
        assert "\n" not in error
        assert "(partition-id " in error
        assert f"dataset some/data: {reason}" in error
        assert "HF_CACHE is not set; fill a cache where the hub answers: bouquet dataset some/data" in error
    assert len(report["errors"]) == 3
    run = offline.runs()[run_id(output)]
    assert run["status"].startswith("finished:failed")
    assert "DatasetUnavailableError: dataset some/data" in output


def test_a_brought_cache_serves_nodes_and_server_and_each_node_has_its_keys(offline: Bouquet, brought: Path) -> None:
    file = offline.folder / "nodes.toml"
    file.write_text('site = "all"\n[1]\nsite = "it\'s \\"one\\" = \\\\"\n')
    up(offline, HF_CACHE=str(brought), NODE_CONFIG_FILE=str(file), NODE_CONFIG="port=5432")
    output = offline.submit("hub_dataset", "--stream", nodes=3)
    (report,) = printed_json("hub_dataset", output)
    assert report["rows"] == [ROWS // 3] * 3, report["errors"]
    assert f"rows on the server: {ROWS}" in output
    found = {config.pop("partition-id"): config for config in report["node-configs"]}
    others = {"num-partitions": 3, "site": "all", "port": 5432}
    assert found == {0: others, 1: {**others, "site": 'it\'s "one" = \\'}, 2: others}


def test_a_changed_file_reaches_the_nodes_at_the_next_start(offline: Bouquet, brought: Path) -> None:
    file = offline.folder / "nodes.toml"
    file.write_text("[2]\nport = 1\n")
    up(offline, HF_CACHE=str(brought), NODE_CONFIG_FILE=str(file))
    output = offline.submit("hub_dataset", "--stream", nodes=3, on_server=False)
    (report,) = printed_json("hub_dataset", output)
    assert sorted(config.get("port", 0) for config in report["node-configs"]) == [0, 0, 1]


def test_keys_for_a_node_that_the_fleet_does_not_have_are_refused(offline: Bouquet) -> None:
    file = offline.folder / "nodes.toml"
    file.write_text("[3]\nport = 1\n")
    done = offline("up", NODE_CONFIG_FILE=str(file))
    assert done.returncode == 2
    assert "[3] is for no node: SUPERNODES=3 has partition-ids 0 to 2" in done.stderr
