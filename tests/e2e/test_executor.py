"""The warm executor on a fleet of two, as processes: what apps may do, and what becomes of the processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PROJECT, Bouquet

APPS = PROJECT / "tests" / "apps"
NODES = 2
TASK_SECONDS = 6


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """Two nodes whose executor preloads nothing and ends a message after a few seconds."""
    settings = {
        "SUPERNODES": str(NODES),
        "EXECUTOR_PRELOAD": "json",  # next to nothing
        "EXECUTOR_TIMEOUT": str(TASK_SECONDS),
    }
    bouquet = Bouquet("processes", tmp_path_factory.mktemp("executor"), settings)
    try:
        up = bouquet("up")
        assert up.returncode == 0, up.stdout + up.stderr
        yield bouquet
        bouquet.show_logs()
    finally:
        bouquet.tear_down()


def flwr(fleet: Bouquet, *arguments: str) -> str:
    """The output of a `flwr` command."""
    command = Path(sys.executable).with_name("flwr")
    done = subprocess.run([command, *arguments], env=fleet.environment, text=True, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(fleet: Bouquet, app: str, **config: Any) -> tuple[list[dict[str, Any]], str]:
    """Run an app: what it printed as JSON, and all of its log."""
    text = " ".join(f"{key.replace('_', '-')}={json.dumps(value)}" for key, value in config.items())
    log = flwr(fleet, "run", str(APPS / app), "local-deployment", "--stream", "--run-config", text)
    return [json.loads(line.partition(" ")[2]) for line in log.splitlines() if line.startswith(f"{app} {{")], log


def statuses(fleet: Bouquet) -> dict[str, str]:
    """The status of every run, by its id."""
    return {
        str(entry["run-id"]): entry["status"]
        for entry in json.loads(flwr(fleet, "ls", "local-deployment", "--format", "json"))["runs"]
    }


def workers(fleet: Bouquet) -> dict[int, str]:
    """Process ids and names of the processes that serve apps."""
    found = {}
    mark = f"BOUQUET_HOME={fleet.folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
            if name.startswith(("clientapp-", "serverapp-")) and mark in (process / "environ").read_bytes():
                found[int(process.name)] = name
        except OSError:
            pass
    return found


def wait_until(condition: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_one_process_serves_all_messages_of_a_run_and_the_context_keeps_its_state(fleet: Bouquet) -> None:
    replies, _ = run(fleet, "faulty", nodes=NODES, rounds=3)
    assert len(replies) == 3 * NODES
    assert len({reply["pid"] for reply in replies}) == NODES
    assert all(reply["messages"] == reply["calls"] == reply["round"] for reply in replies)


def test_a_run_begins_with_a_process_of_its_own_which_ends_with_it(fleet: Bouquet) -> None:
    first, _ = run(fleet, "faulty", nodes=NODES, rounds=1)
    wait_until(lambda: not workers(fleet), 5, "processes outlived their run")
    second, _ = run(fleet, "faulty", nodes=NODES, rounds=1)
    assert {reply["pid"] for reply in first}.isdisjoint({reply["pid"] for reply in second})
    assert all(reply["calls"] == 1 for reply in second)


def test_two_runs_at_once_share_no_state(fleet: Bouquet) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda pause: run(fleet, "faulty", nodes=NODES, rounds=5, pause=pause), (0.2, 0.3)))
    pids = []
    for replies, _ in runs:
        assert all(reply["messages"] == reply["calls"] == reply["round"] for reply in replies)
        pids.append({reply["pid"] for reply in replies})
        assert len(pids[-1]) == NODES
    assert pids[0].isdisjoint(pids[1])


def test_a_client_app_that_raises_replies_with_node_and_traceback_and_goes_on(fleet: Bouquet) -> None:
    replies, _ = run(fleet, "faulty", nodes=NODES, rounds=3, fault="raise")
    errors = [reply["error"] for reply in replies if "error" in reply]
    assert len(errors) == NODES
    for error in errors:
        assert error.startswith("<class 'ZeroDivisionError'>:<'asked to divide by zero'> on SuperNode ")
        assert re.search(r"\(partition-id [01]\)", error)
        assert 'raise ZeroDivisionError("asked to divide by zero")' in error
    last = [reply for reply in replies if reply["round"] == 3]
    assert all((reply["messages"], reply["calls"]) == (2, 3) for reply in last)


@pytest.mark.parametrize(
    ("fault", "cause", "seconds"),
    [
        ("sys-exit", "<class 'SystemExit'>:<'asked to leave'>", 5),
        ("exit", "The ClientApp process exited with code 1.", 5),
        ("segfault", "The ClientApp process was killed by signal 11 (SIGSEGV).", 5),
        ("kill", "The ClientApp process was killed by signal 9 (SIGKILL)", 5),
        ("hang", f"The ClientApp process took longer than {TASK_SECONDS} s and was killed.", TASK_SECONDS + 5),
    ],
)
def test_a_client_app_that_dies_or_hangs_is_answered_for_and_replaced(
    fleet: Bouquet, fault: str, cause: str, seconds: float
) -> None:
    replies, _ = run(fleet, "faulty", nodes=NODES, rounds=3, fault=fault)
    by_round = {number: [reply for reply in replies if reply["round"] == number] for number in (1, 2, 3)}
    assert [len(by_round[number]) for number in (1, 2, 3)] == [NODES] * 3
    for reply in by_round[2]:
        assert reply["error"].startswith(cause)
        assert reply["seconds"] < seconds
    for reply in by_round[3]:
        assert (reply["messages"], reply["calls"]) == (2, 1), "Context kept, process new"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("raise", "ZeroDivisionError: asked to divide by zero"),
        ("exit", "The ServerApp process exited with code 1."),
        ("kill", "The ServerApp process was killed by signal 9 (SIGKILL)"),
    ],
)
def test_a_server_app_that_fails_fails_its_run_and_the_log_says_why(fleet: Bouquet, fault: str, cause: str) -> None:
    _, log = run(fleet, "faulty", nodes=NODES, rounds=1, server_fault=fault)
    assert cause in log
    match = re.search(r"Successfully started run (\d+)", log)
    assert match is not None
    assert statuses(fleet)[match[1]] == "finished:failed"


def test_stopping_a_run_ends_its_processes_in_the_middle_of_a_message(fleet: Bouquet) -> None:
    config = f"nodes={NODES} rounds=1000 pause=3.0"
    log = flwr(fleet, "run", str(APPS / "faulty"), "local-deployment", "--run-config", config)
    match = re.search(r"Successfully started run (\d+)", log)
    assert match is not None
    wait_until(lambda: len(workers(fleet)) == NODES + 1, 30, "the run did not begin")
    flwr(fleet, "stop", match[1], "local-deployment")
    wait_until(lambda: not workers(fleet), 3, "processes outlived their run")
    replies, _ = run(fleet, "faulty", nodes=NODES, rounds=1)
    assert len(replies) == NODES, "the nodes serve the next run"


def test_round_trips_take_milliseconds(fleet: Bouquet) -> None:
    figures, _ = run(fleet, "noop", nodes=NODES, trips=20)
    assert figures[0]["one"]["median"] < 1, "a sleep is back: stock Flower's take seconds"


def test_a_member_that_is_killed_leaves_no_process_behind(fleet: Bouquet) -> None:
    config = f"nodes={NODES} rounds=1000 pause=3.0"
    flwr(fleet, "run", str(APPS / "faulty"), "local-deployment", "--run-config", config)
    wait_until(lambda: len(workers(fleet)) == NODES + 1, 30, "the run did not begin")
    left = workers(fleet)
    hosts = {parent(parent(pid)) for pid in left}
    for host in hosts:
        os.kill(host, signal.SIGKILL)
    wait_until(lambda: not left.keys() & workers(fleet).keys(), 3, "workers outlived their Flower")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
