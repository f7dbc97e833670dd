"""Health in real containers: who was frozen is healthy again at once, who hangs is unhealthy, and runs survive both."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from python_on_whales import Container

from tests.e2e.conftest import CONNECTION, Bouquet, StartFleet, printed_json, run_id, wait_until

NODES = 2
SOON = 15.0
"""Seconds until a container is healthy again, on a busy machine. Here it takes 1 to 3; the tests print it."""
HANG_SECONDS = 90.0
"""Seconds until a process that hangs is noticed, on a busy machine; here it takes 25."""
FROZEN_SECONDS = 75.0
"""More than the minute after which a node or a task without heartbeats is lost."""
PATIENCE = 240.0

# Sends a signal to the processes of its container with a certain word in their command line, and prints how many.
SIGNAL = """
import contextlib, os, pathlib, sys
number, word, sent = int(sys.argv[1]), sys.argv[2], 0
for process in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if int(process.name) not in (1, os.getpid()) and word in (process / "cmdline").read_text():
            os.kill(int(process.name), number)
            sent += 1
print(sent)
"""


@pytest.fixture(scope="module")
def fleet(docker: None, start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """Two nodes that preload next to nothing."""
    folder = tmp_path_factory.mktemp("health")
    with start_fleet("containers", folder, SUPERNODES=str(NODES), EXECUTOR_PRELOAD="json") as fleet:
        yield fleet


def health(container: Container) -> str:
    container.reload()  # type: ignore[no-untyped-call]
    return str(container.state.health.status) if container.state.health else "unknown"


def wait_for_health(container: Container, state: str, seconds: float) -> None:
    began = time.monotonic()
    wait_until(lambda: health(container) == state, f"{container.name} is {state}", seconds)
    print(f"{container.name} is {state}: after {time.monotonic() - began:.1f} s")


@contextmanager
def stopped(*containers: Container, program: str = "") -> Iterator[None]:
    """SIGSTOP the processes of containers whose command line contains `program`; they always continue afterwards."""
    for container in containers:
        assert int(str(container.execute(["python", "-c", SIGNAL, str(int(signal.SIGSTOP)), program]))) > 0
    try:
        yield
    finally:
        for container in containers:
            container.execute(["python", "-c", SIGNAL, str(int(signal.SIGCONT)), program])


def start(fleet: Bouquet, rounds: int, pause: float) -> str:
    """Start a run of `faulty`, and wait for its first replies; return its id."""
    run = run_id(fleet.submit("faulty", nodes=NODES, rounds=rounds, pause=pause))
    wait_until(lambda: replies(fleet, run), "the first replies", PATIENCE)
    return run


def replies(fleet: Bouquet, run: str) -> list[dict[str, object]]:
    return printed_json("faulty", fleet.try_flwr("log", run, CONNECTION, "--show").stdout)


def end(fleet: Bouquet, run: str) -> tuple[str, list[dict[str, object]]]:
    """Wait for the end of a run; return its status and its replies."""

    def status() -> str:
        return str(fleet.runs().get(run, {"status": ""})["status"])

    wait_until(lambda: status().startswith("finished"), f"the end of run {run}", PATIENCE)
    return status(), replies(fleet, run)


def test_a_node_that_is_paused_during_a_run_is_healthy_again_at_once(fleet: Bouquet) -> None:
    run = start(fleet, rounds=5, pause=2)
    node = fleet.compose.ps(["supernode"])[0]
    node.pause()
    time.sleep(5)
    assert health(node) == "unhealthy"
    node.unpause()
    wait_for_health(node, "healthy", SOON)
    up = fleet("up")
    assert up.returncode == 0, up.stdout + up.stderr
    status, answers = end(fleet, run)
    assert status == "finished:completed"
    assert len(answers) == 5 * NODES
    assert len([answer for answer in answers if "error" in answer]) <= 1, answers


def test_a_longer_up_timeout_recreates_nothing(fleet: Bouquet) -> None:
    before = {(container.id, container.state.pid) for container in fleet.compose.ps()}
    up = fleet("up", UP_TIMEOUT="900")
    assert up.returncode == 0, up.stdout + up.stderr
    assert {(container.id, container.state.pid) for container in fleet.compose.ps()} == before


@pytest.mark.parametrize(("service", "program"), [("supernode", "serve_supernode"), ("superlink", "flower_process")])
def test_a_process_that_hangs_is_unhealthy_until_it_moves_again(fleet: Bouquet, service: str, program: str) -> None:
    container = fleet.compose.ps([service])[0]
    with stopped(container, program=program):
        wait_for_health(container, "unhealthy", HANG_SECONDS)
    wait_for_health(container, "healthy", SOON)


def test_a_run_continues_when_the_whole_machine_has_slept(fleet: Bouquet) -> None:
    containers = fleet.compose.ps()
    for container in containers:
        wait_for_health(container, "healthy", PATIENCE)
    run = start(fleet, rounds=3, pause=4)
    with stopped(*containers):
        time.sleep(FROZEN_SECONDS)
    for container in containers:
        wait_for_health(container, "healthy", SOON)
    status, answers = end(fleet, run)
    assert status == "finished:completed"
    assert len(answers) == 3 * NODES
    assert all("error" not in answer for answer in answers), answers
