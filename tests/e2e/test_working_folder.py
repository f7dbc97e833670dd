"""A ClientApp has a working directory of its own: one per run and node, for as long as the run."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Bouquet, StartFleet, printed_json, wait_until

NODES, ROUNDS = 2, 3
REMOVED_SECONDS = 20


@pytest.fixture(scope="module", params=["containers", "processes"])
def fleet(
    request: pytest.FixtureRequest, start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bouquet]:
    """Two nodes that start a process for each message."""
    settings = {"SUPERNODES": str(NODES), "EXECUTOR_PRELOAD": "none", "EXECUTOR_MESSAGES": "1"}
    with start_fleet(request.param, tmp_path_factory.mktemp("folder"), **settings) as fleet:
        yield fleet


def run(fleet: Bouquet) -> list[dict[str, Any]]:
    """Run the app; return the report of each node."""
    [printed] = printed_json(
        "working_folder", fleet.submit("working_folder", "--stream", nodes=NODES, num_server_rounds=ROUNDS)
    )
    nodes: list[dict[str, Any]] = printed["nodes"]
    return nodes


def is_gone(fleet: Bouquet, folder: str) -> bool:
    if fleet.kind == "processes":
        return not Path(folder).exists()
    look = ["sh", "-c", f"test -e {folder} && echo there || echo gone"]
    return all(node.execute(look) == "gone" for node in fleet.compose.ps(services=["supernode"]))


def test_what_a_client_app_writes_stays_for_its_run_and_no_other_node_or_run_sees_it(fleet: Bouquet) -> None:
    first, second = run(fleet), run(fleet)
    for nodes in (first, second):
        assert sorted(node["lines"] for node in nodes) == [[str(partition)] * ROUNDS for partition in range(NODES)]
        assert {node["processes"] for node in nodes} == {ROUNDS}, "the files outlive the processes"
    assert {node["folder"] for node in first}.isdisjoint(node["folder"] for node in second)
    if fleet.kind == "processes":
        assert len({node["folder"] for node in first}) == NODES
    for folder in {node["folder"] for node in first + second}:
        wait_until(partial(is_gone, fleet, folder), f"{folder} is removed", REMOVED_SECONDS)
