"""Models that are large for the memory that the containers may use."""

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Bouquet, StartFleet, printed_json, run_id

NODES = 2
MODEL_MIB = 64
SUPERLINK_MEMORY = "900m"
"""The SuperLink's container held the replies of two rounds, and those on their way: 1.3 GiB for this model."""


@pytest.fixture(scope="module")
def fleet(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    with start_fleet(
        "containers",
        tmp_path_factory.mktemp("large"),
        SUPERNODES=str(NODES),
        SUPERLINK_MEMORY=SUPERLINK_MEMORY,
        SUPERNODE_MEMORY="1g",
        EXECUTOR_PRELOAD="numpy",
    ) as started:
        yield started


def test_the_replies_of_two_rounds_need_not_fit_into_the_superlinks_memory(fleet: Bouquet) -> None:
    output = fleet.submit("large_model", "--stream", nodes=NODES, model_mib=MODEL_MIB)
    assert fleet.runs()[run_id(output)]["status"] == "finished:completed", output
    assert printed_json("large_model", output)[0]["rounds"] == 3
    objects = fleet.compose.execute("superlink", ["find", "/var/lib/bouquet/state/messages", "-type", "f"], tty=False)
    assert not objects  # nothing of a finished run stays on the disk


def test_a_node_that_runs_out_of_memory_names_the_setting(fleet: Bouquet) -> None:
    output = fleet.submit("large_model", "--stream", nodes=NODES, model_mib=1, node_hoard_mib=2048)
    assert output.count("out of memory. The container's memory limit is SUPERNODE_MEMORY=1g: set a higher one") >= NODES


def test_a_serverapp_that_runs_out_of_memory_names_the_setting(fleet: Bouquet) -> None:
    output = fleet.submit("large_model", "--stream", nodes=NODES, model_mib=1, server_hoard_mib=2048)
    run = fleet.runs()[run_id(output)]
    assert run["status"] == "finished:failed", output
    assert f"out of memory. The container's memory limit is SUPERLINK_MEMORY={SUPERLINK_MEMORY}" in output
