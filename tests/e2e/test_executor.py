"""The warm executor on a fleet of two, as processes: what apps may do, and what becomes of the processes."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import CONNECTION, Bouquet, StartFleet, printed_json, run_id, wait_until

NODES = 2
TASK_SECONDS = 6


@pytest.fixture(scope="module")
def fleet(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """Two nodes whose executor preloads nothing and ends a message after a few seconds."""
    settings = {
        "SUPERNODES": str(NODES),
        "EXECUTOR_PRELOAD": "json",  # next to nothing
        "EXECUTOR_TIMEOUT": str(TASK_SECONDS),
    }
    with start_fleet("processes", tmp_path_factory.mktemp("executor"), **settings) as fleet:
        yield fleet


def run(fleet: Bouquet, app: str, **config: Any) -> tuple[list[dict[str, Any]], str]:
    """Run an app: what it printed as JSON, and all of its log."""
    log = fleet.submit(app, "--stream", **config)
    return printed_json(app, log), log


def workers(fleet: Bouquet) -> dict[int, str]:
    """Process ids and names of the processes that serve apps."""
    found = {}
    for process in psutil.process_iter():
        try:
            name = process.name()
            if name.startswith(("clientapp-", "serverapp-")) and (
                process.environ().get("BOUQUET_HOME") == fleet.environment["BOUQUET_HOME"]
            ):
                found[process.pid] = name
        except psutil.Error:
            pass
    return found


def start_endless_run(fleet: Bouquet) -> str:
    """Start a run whose messages take 3 s each; return its id once all of its processes work."""
    started = run_id(fleet.submit("faulty", nodes=NODES, rounds=1000, pause=3.0))
    wait_until(lambda: len(workers(fleet)) == NODES + 1, "the run did not begin", 30)
    return started


def test_one_process_serves_all_messages_of_a_run_and_the_context_keeps_its_state(fleet: Bouquet) -> None:
    replies, _ = run(fleet, "faulty", nodes=NODES, rounds=3)
    assert len(replies) == 3 * NODES
    assert len({reply["pid"] for reply in replies}) == NODES
    assert all(reply["messages"] == reply["calls"] == reply["round"] for reply in replies)


def test_a_run_begins_with_a_process_of_its_own_which_ends_with_it(fleet: Bouquet) -> None:
    first, _ = run(fleet, "faulty", nodes=NODES, rounds=1)
    wait_until(lambda: not workers(fleet), "processes outlived their run", 5)
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
        assert re.match(rf"(partition-id \d+: )?{re.escape(cause)}", reply["error"])
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
    assert fleet.runs()[run_id(log)]["status"] == "finished:failed"


def test_stopping_a_run_ends_its_processes_in_the_middle_of_a_message(fleet: Bouquet) -> None:
    started = start_endless_run(fleet)
    fleet.flwr("stop", started, CONNECTION)
    wait_until(lambda: not workers(fleet), "processes outlived their run", 3)
    replies, _ = run(fleet, "faulty", nodes=NODES, rounds=1)
    assert len(replies) == NODES, "the nodes serve the next run"


def test_round_trips_take_milliseconds(fleet: Bouquet) -> None:
    figures, _ = run(fleet, "noop", nodes=NODES, trips=20)
    assert figures[0]["one"]["median"] < 1, "a sleep is back: stock Flower's take seconds"


def test_a_member_that_is_killed_leaves_no_process_behind(fleet: Bouquet) -> None:
    start_endless_run(fleet)
    left = workers(fleet)
    for flower in {psutil.Process(pid).parents()[1] for pid in left}:  # the parent is the zygote
        flower.kill()
    wait_until(lambda: not left.keys() & workers(fleet).keys(), "workers outlived their Flower", 3)
