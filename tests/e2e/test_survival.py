"""What breaks while a run is going on, in real containers: who comes back is who it was, soon, and the run goes on."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bouquet.host.run import FLWR, QUIET, STARTED
from python_on_whales import Container, DockerClient

from tests.e2e.conftest import PROJECT, Bouquet

FAULTY = str(PROJECT / "tests" / "apps" / "faulty")
CONNECTION = "local-deployment"
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
def fleet(docker: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """Three nodes that preload next to nothing."""
    settings = {"SUPERNODES": str(NODES), "EXECUTOR_PRELOAD": "json"}
    bouquet = Bouquet("containers", tmp_path_factory.mktemp("survival"), settings)
    failed = request.session.testsfailed
    try:
        up = bouquet("up")
        assert up.returncode == 0, up.stdout + up.stderr
        yield bouquet
    finally:
        if request.session.testsfailed > failed:
            bouquet.show_logs()
        bouquet.tear_down()


def flwr(fleet: Bouquet, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A `flwr` command, which fails while the SuperLink is away."""
    return subprocess.run(
        [FLWR, *arguments], env=fleet.environment | QUIET, text=True, capture_output=True, timeout=PATIENCE
    )


def start(fleet: Bouquet, **config: Any) -> str:
    """Start a run of `faulty`, and wait for its first replies; return its id."""
    text = " ".join(f"{key}={json.dumps(value)}" for key, value in ({"nodes": NODES} | config).items())
    started = flwr(fleet, "run", FAULTY, CONNECTION, "--run-config", text)
    match = STARTED.search(started.stdout)
    assert match is not None, started.stdout + started.stderr
    wait_for(lambda: replies(fleet, match[1]), "the first replies")
    return match[1]


def replies(fleet: Bouquet, run: str) -> list[dict[str, Any]]:
    """The replies that a run of `faulty` has had so far."""
    log = flwr(fleet, "log", run, CONNECTION, "--show").stdout
    return [json.loads(line) for line in re.findall(r"^faulty (\{.*\})$", log, re.MULTILINE)]


def rows(fleet: Bouquet) -> dict[str, dict[str, Any]]:
    """What the SuperLink says of each run; nothing while it is away."""
    try:
        listed = json.loads(flwr(fleet, "ls", CONNECTION, "--format", "json").stdout)["runs"]
    except (ValueError, LookupError):  # `flwr` says that nobody answers, in a way of its own
        return {}
    return {row["run-id"]: row for row in listed}


def end(fleet: Bouquet, run: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Wait for the end of a run: how it ended, and all its replies."""

    def ended() -> dict[str, Any] | None:
        row = rows(fleet).get(run, {"status": "unknown"})
        return row if row["status"].startswith("finished") else None

    return wait_for(ended, f"the end of run {run}"), replies(fleet, run)


def wait_for(condition: Callable[[], Any], what: str, since: float | None = None) -> Any:
    """Wait for what `condition` returns to be true, and say how long it took."""
    began = since or time.monotonic()
    while not (found := condition()):
        assert time.monotonic() - began < PATIENCE, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.2)
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


def test_a_superlink_that_is_killed_alone_is_started_anew_and_the_run_completes_with_all_replies(
    fleet: Bouquet,
) -> None:
    superlink = fleet.compose.ps(["superlink"])[0]
    pid = superlink.state.pid
    run = start(fleet, rounds=12, pause=0.5)
    killed = time.monotonic()
    assert superlink.execute(["python", "-c", KILL_SUPERLINK]) == "killed"
    wait_for(lambda: rows(fleet), "the SuperLink answers again", killed)
    row, answers = end(fleet, run)
    assert row["status"] == "finished:completed", row
    assert len(answers) == 12 * NODES
    assert all("error" not in answer for answer in answers), answers
    wait_for(lambda: is_healthy(superlink), "the SuperLink is healthy")
    assert superlink.state.pid == pid, "the container is the one it was"


def test_a_node_that_is_killed_while_it_works_is_the_same_node_soon_and_its_failure_is_named(fleet: Bouquet) -> None:
    before = node_ids(fleet)
    run = start(fleet, rounds=4, pause=6)
    node = fleet.compose.ps(["supernode"])[0]
    time.sleep(2)  # into the six that each message takes
    killed = time.monotonic()
    node.kill()
    node.start()
    wait_for(lambda: is_healthy(node), "the node is healthy again", killed)
    row, answers = end(fleet, run)
    assert row["status"] == "finished:completed", row
    errors = [answer for answer in answers if "error" in answer]
    assert [f"SuperNode {error['node']} was restarted" in error["error"] for error in errors] == [True], errors
    print(f"the round with the failure took {errors[0]['seconds']:.1f} s")
    assert len(answers) == 4 * NODES
    last = {answer["node"] for answer in answers if answer["round"] == 4 and "error" not in answer}
    assert last == before == node_ids(fleet), "the same nodes"


def test_a_node_that_changes_its_network_address_goes_on(fleet: Bouquet) -> None:
    before = node_ids(fleet)
    node = fleet.compose.ps(["supernode"])[0]
    network = f"{fleet.environment['COMPOSE_PROJECT_NAME']}_fleet"
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


def test_a_superlink_that_is_restarted_has_its_nodes_and_its_runs_and_ends_what_was_going_on(fleet: Bouquet) -> None:
    before, listed = node_ids(fleet), rows(fleet)
    run = start(fleet, rounds=1000, pause=0.5)
    superlink = fleet.compose.ps(["superlink"])[0]
    restarted = time.monotonic()
    fleet.compose.restart(["superlink"])
    wait_for(lambda: is_healthy(superlink), "the SuperLink is healthy", restarted)
    row, _ = end(fleet, run)
    assert row["status"] == "finished:failed", row
    assert "The SuperLink was stopped" in json.dumps(row)
    assert node_ids(fleet) == before
    print(f"the nodes have replied {time.monotonic() - restarted:.1f} s after the restart began")
    after = rows(fleet)
    assert {known: after[known]["status"] for known in listed} == {known: listed[known]["status"] for known in listed}
