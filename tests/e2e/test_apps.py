"""Flower Apps that know nothing of Bouquet, on a fleet of processes: tests/apps has them."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import APPS, CONNECTION, Bouquet, StartFleet, printed_json, run_id

KINDS = ["train", "evaluate", "query"]

Report = dict[str, Any]


@pytest.fixture(scope="module")
def warm(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """Three nodes with NumPy and scikit-learn that preload Flower only: the apps import what they need."""
    folder, app = tmp_path_factory.mktemp("warm"), str(APPS / "sklearn_logistic")
    with start_fleet("processes", folder, SUPERNODES="3", EXECUTOR="warm", EXECUTOR_PRELOAD="flwr", APP=app) as fleet:
        yield fleet


@pytest.fixture
def stock(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    folder = tmp_path_factory.mktemp("stock")
    with start_fleet("processes", folder, SUPERNODES="2", EXECUTOR="stock", EXECUTOR_PRELOAD="flwr") as fleet:
        yield fleet


def report(app: str, output: str) -> Report:
    """The JSON that the ServerApp printed."""
    (found,) = printed_json(app, output)
    return found


def complete(fleet: Bouquet, app: str, **run_config: Any) -> Report:
    """Run an app to its end, which must be a good one; return its report."""
    output = fleet.submit(app, "--stream", **run_config)
    assert fleet.runs()[run_id(output)]["status"] == "finished:completed", output
    return report(app, output)


def assert_descended_as_all_data_in_one_place(found: Report, loss: float) -> None:
    assert found["weights"] == pytest.approx(found["central-weights"], rel=1e-9)
    assert found["loss"] == pytest.approx(found["central-loss"], rel=1e-9)
    assert 0 < found["loss"] < loss


def assert_learned_digits(found: Report) -> None:
    before, *after = found["accuracy"]
    assert before < 0.2
    assert after[-1] > 0.9
    assert found["loss"][-1] < found["loss"][0]


def counts(rounds: int) -> list[list[str]]:
    """What `stateful` finds in its Context at each message of a run: all messages since the run's first."""
    messages = KINDS * rounds
    return [messages[: n + 1] for n in range(len(messages))]


def assert_counted(found: Report, nodes: int, rounds: int) -> None:
    assert len(found["replies"]) == nodes
    for replies in found["replies"]:
        assert [reply["kinds"] for reply in replies] == counts(rounds)
        assert [reply["counts"] for reply in replies] == [
            {kind: kinds.count(kind) for kind in KINDS if kind in kinds} for kinds in counts(rounds)
        ]


def assert_module_state_is_the_runs_own(found: Report) -> None:
    """A process served this run, from its first message to its last, and no other."""
    assert found["started"] == 1
    for replies in found["replies"]:
        assert [reply["answered"] for reply in replies] == list(range(1, len(replies) + 1))


def test_an_app_in_numpy_gets_the_mean_of_its_nodes_weighted_by_their_examples(warm: Bouquet) -> None:
    assert_descended_as_all_data_in_one_place(complete(warm, "numpy_mean", num_server_rounds=8), loss=2)


def test_an_app_in_scikit_learn_learns_from_the_partitions_of_its_nodes(warm: Bouquet) -> None:
    assert_learned_digits(complete(warm, "sklearn_logistic", num_server_rounds=3))


def test_an_app_keeps_its_context_over_rounds_and_all_three_types_of_message(warm: Bouquet) -> None:
    assert_counted(complete(warm, "stateful"), nodes=3, rounds=3)


def recorded(fleet: Bouquet, output: str) -> tuple[Path, Report]:
    """The results folder of a run on the host, and its metrics.json."""
    done = fleet("results")
    assert done.returncode == 0, done.stderr
    folder = fleet.results / run_id(output)
    return folder, json.loads((folder / "metrics.json").read_text())


def test_the_rounds_of_a_strategy_are_recorded_and_what_the_app_saves_is_among_its_results(warm: Bouquet) -> None:
    output = warm.submit("numpy_mean", "--stream", num_server_rounds=4)
    folder, metrics = recorded(warm, output)
    assert (metrics["status"], metrics["strategy"]) == ("completed", "FedAvg")
    assert [entry["round"] for entry in metrics["rounds"]] == [1, 2, 3, 4]
    for entry in metrics["rounds"]:
        for phase in (entry["train"], entry["evaluate"]):
            assert [node["partition-id"] for node in phase["nodes"].values()] == [0, 1, 2]
    assert np.load(folder / "weights.npy").tolist() == report("numpy_mean", output)["weights"]
    assert {path.name for path in folder.iterdir()} == {"history.png", "metrics.json", "weights.npy"}


def test_the_exchanges_of_an_app_with_its_own_loop_are_recorded(warm: Bouquet) -> None:
    _, metrics = recorded(warm, warm.submit("stateful", "--stream", num_server_rounds=2))
    assert (metrics["status"], metrics["strategy"], metrics["rounds"]) == ("completed", None, [])
    assert [entry["message-type"] for entry in metrics["exchanges"]] == KINDS * 2
    assert [entry["metrics"]["answered"] for entry in metrics["exchanges"]] == [1, 2, 3, 4, 5, 6]


def test_a_strategy_that_asks_for_more_nodes_than_the_fleet_has_fails_at_once(warm: Bouquet) -> None:
    output = warm.submit("numpy_mean", "--stream", nodes=9)
    _, metrics = recorded(warm, output)
    assert metrics["status"] == "failed"
    assert metrics["error"].startswith("FedAvg: min_available_nodes=9, but the run has 3 SuperNodes; start more")
    assert metrics["error"] in output


def test_each_run_starts_fresh_after_runs_of_its_own_app_and_of_another(warm: Bouquet) -> None:
    first = complete(warm, "stateful", num_server_rounds=2)
    between = complete(warm, "numpy_mean", num_server_rounds=2)
    last = complete(warm, "stateful", num_server_rounds=2)
    assert_descended_as_all_data_in_one_place(between, loss=20)
    for found in (first, last):
        assert_counted(found, nodes=3, rounds=2)
        assert_module_state_is_the_runs_own(found)


def test_two_runs_at_the_same_time_are_both_right_and_share_nothing(warm: Bouquet) -> None:
    # The pauses let the other run's messages come between this one's, on each node; both are submitted at once,
    # as `flwr run` itself takes longer than a run where the machine is busy.
    with ThreadPoolExecutor() as pool:
        submitted = [
            pool.submit(warm.submit, "stateful", pause=8.0),
            pool.submit(warm.submit, "numpy_mean", num_server_rounds=8),
        ]
    counting, descending = (run_id(each.result()) for each in submitted)
    logs = {run: warm.flwr("log", run, CONNECTION, "--stream") for run in (counting, descending)}
    rows = {run: warm.runs()[run] for run in logs}
    assert [rows[run]["status"] for run in logs] == ["finished:completed"] * 2, logs
    assert rows[descending]["running-at"] < rows[counting]["finished-at"]
    assert rows[counting]["running-at"] < rows[descending]["finished-at"]
    found = report("stateful", logs[counting])
    assert_counted(found, nodes=3, rounds=3)
    assert_module_state_is_the_runs_own(found)
    assert_descended_as_all_data_in_one_place(report("numpy_mean", logs[descending]), loss=2)


def test_the_context_counts_the_same_where_the_executor_is_flowers_own(warm: Bouquet, stock: Bouquet) -> None:
    for fleet, nodes in ((warm, 3), (stock, 2)):
        assert_counted(complete(fleet, "stateful", num_server_rounds=2, nodes=2), nodes, rounds=2)
