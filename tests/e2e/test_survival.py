"""Failures during a run, in real containers: who restarts keeps its identity, soon, and the run continues."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from python_on_whales import Container, DockerClient

from tests.e2e.conftest import CONNECTION, Bouquet, StartFleet, printed_json, run_id, wait_until

NODES = 3
PATIENCE = 240.0  # seconds: a busy machine is no failure; what the tests measure, they print

# Kills the SuperLink, and neither what keeps it running nor the ServerApps.
KILL_SUPERLINK = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if (process / "comm").read_text().strip() == "flower-superlin":
        os.kill(int(process.name), signal.SIGKILL)
        print("killed")
"""


@pytest.fixture(scope="module")
def fleet(docker: None, start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """Three nodes that preload next to nothing."""
    folder = tmp_path_factory.mktemp("survival")
    with start_fleet("containers", folder, SUPERNODES=str(NODES), EXECUTOR_PRELOAD="json") as fleet:
        yield fleet


def start(fleet: Bouquet, **config: Any) -> str:
    """Start a run of `faulty`, and wait for its first replies; return its id."""
    started = run_id(fleet.submit("faulty", **({"nodes": NODES} | config)))
    timed(lambda: replies(fleet, started), "the first replies")
    return started


def replies(fleet: Bouquet, run: str) -> list[dict[str, Any]]:
    """The replies that a run of `faulty` has had so far."""
    return printed_json("faulty", fleet.try_flwr("log", run, CONNECTION, "--show").stdout)


def end(fleet: Bouquet, run: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Wait for the end of a run: how it ended, and all its replies."""

    def ended() -> dict[str, Any] | None:
        row = fleet.runs().get(run, {"status": "unknown"})
        return row if row["status"].startswith("finished") else None

    row = timed(ended, f"the end of run {run}")
    assert row is not None
    return row, replies(fleet, run)


def timed(condition: Callable[[], Any], what: str, since: float | None = None) -> Any:
    """Wait for what `condition` returns to be true, and print how long it took."""
    began = since or time.monotonic()
    found = wait_until(condition, what, PATIENCE)
    print(f"{what}: after {time.monotonic() - began:.1f} s")
    return found


def is_healthy(container: Container) -> bool:
    container.reload()  # type: ignore[no-untyped-call]
    return bool(container.state.running and container.state.health and container.state.health.status == "healthy")


def address_in(network: str, container: Container) -> str:
    container.reload()  # type: ignore[no-untyped-call]
    return str((container.network_settings.networks or {})[network].ip_address)


def node_ids(fleet: Bouquet) -> set[int]:
    """The nodes that answer a run."""
    _, answers = end(fleet, start(fleet, rounds=1))
    assert all("error" not in answer for answer in answers), answers
    return {answer["node"] for answer in answers}


def test_a_superlink_process_that_is_killed_is_restarted_and_the_run_completes_with_all_replies(
    fleet: Bouquet,
) -> None:
    superlink = fleet.compose.ps(["superlink"])[0]
    pid = superlink.state.pid
    run = start(fleet, rounds=12, pause=0.5)
    killed = time.monotonic()
    assert superlink.execute(["python", "-c", KILL_SUPERLINK]) == "killed"
    timed(fleet.runs, "the SuperLink answers again", killed)
    row, answers = end(fleet, run)
    assert row["status"] == "finished:completed", row
    assert len(answers) == 12 * NODES
    assert all("error" not in answer for answer in answers), answers
    timed(lambda: is_healthy(superlink), "the SuperLink is healthy")
    assert superlink.state.pid == pid, "the container is the one it was"


def test_a_node_that_is_killed_while_it_works_returns_as_the_same_node_and_its_failure_is_named(fleet: Bouquet) -> None:
    before = node_ids(fleet)
    run = start(fleet, rounds=4, pause=6)
    node = fleet.compose.ps(["supernode"])[0]
    time.sleep(2)  # into the six that each message takes
    killed = time.monotonic()
    node.kill()
    node.start()
    timed(lambda: is_healthy(node), "the node is healthy again", killed)
    row, answers = end(fleet, run)
    assert row["status"] == "finished:completed", row
    errors = [answer for answer in answers if "error" in answer]
    assert [f"SuperNode {error['node']} was restarted" in error["error"] for error in errors] == [True], errors
    print(f"the round with the failure took {errors[0]['seconds']:.1f} s")
    assert len(answers) == 4 * NODES
    last = {answer["node"] for answer in answers if answer["round"] == 4 and "error" not in answer}
    assert last == before == node_ids(fleet), "the same nodes"


def test_a_node_that_changes_its_network_address_continues(fleet: Bouquet) -> None:
    before = node_ids(fleet)
    node = fleet.compose.ps(["supernode"])[0]
    network = f"{fleet.project}_fleet"
    address = address_in(network, node)
    docker = DockerClient()
    run = start(fleet, rounds=20, pause=0.5)
    docker.network.disconnect(network, node)
    # Whether Docker gives out the address that is free or the next: the node gets another one.
    sleep = ["-c", "import time; time.sleep(3600)"]
    other = docker.run(node.image, sleep, entrypoint="python", networks=[network], detach=True, remove=True)
    try:
        time.sleep(5)  # cut off, in the middle of the run
        docker.network.connect(network, node)
        connected = time.monotonic()
        assert address_in(network, node) != address
        row, answers = end(fleet, run)
        print(f"the run ended {time.monotonic() - connected:.1f} s after the network was back")
    finally:
        other.kill()
    assert row["status"] == "finished:completed", row
    assert len(answers) == 20 * NODES
    assert all("error" not in answer for answer in answers), answers
    assert {answer["node"] for answer in answers} == before


def test_a_superlink_that_is_restarted_keeps_its_nodes_and_runs_and_fails_the_run_under_way(fleet: Bouquet) -> None:
    before, listed = node_ids(fleet), fleet.runs()
    run = start(fleet, rounds=1000, pause=0.5)
    superlink = fleet.compose.ps(["superlink"])[0]
    restarted = time.monotonic()
    fleet.compose.restart(["superlink"])
    timed(lambda: is_healthy(superlink), "the SuperLink is healthy", restarted)
    row, _ = end(fleet, run)
    assert row["status"] == "finished:failed", row
    assert "The SuperLink was stopped" in json.dumps(row)
    assert node_ids(fleet) == before
    print(f"the nodes have replied {time.monotonic() - restarted:.1f} s after the restart began")
    after = fleet.runs()
    assert {known: after[known]["status"] for known in listed} == {known: listed[known]["status"] for known in listed}
