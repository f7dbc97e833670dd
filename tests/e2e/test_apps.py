"""Flower Apps that know nothing of Bouquet, on a fleet of processes: tests/apps has them."""

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from bouquet.host.run import FLWR, QUIET, STARTED

from tests.e2e.conftest import PROJECT, Bouquet

APPS = PROJECT / "tests" / "apps"
CONNECTION = "local-deployment"
RUN_SECONDS = 600  # a busy machine takes its time, and where the executor is stock each message starts a process
KINDS = ["train", "evaluate", "query"]

Report = dict[str, Any]


@contextmanager
def fleet_of(
    supernodes: int, executor: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bouquet]:
    """A fleet that preloads nothing but Flower: what the apps need, they import."""
    settings = {"SUPERNODES": str(supernodes), "EXECUTOR": executor, "EXECUTOR_PRELOAD": "flwr"}
    fleet = Bouquet("processes", tmp_path_factory.mktemp(executor), settings)
    failed = request.session.testsfailed
    try:
        up = fleet("up")
        assert up.returncode == 0, up.stdout + up.stderr
        yield fleet
    finally:
        if request.session.testsfailed > failed:
            fleet.show_logs()
        fleet.tear_down()


@pytest.fixture(scope="module")
def warm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    with fleet_of(3, "warm", request, tmp_path_factory) as fleet:
        yield fleet


@pytest.fixture
def stock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    with fleet_of(2, "stock", request, tmp_path_factory) as fleet:
        yield fleet


def flwr(fleet: Bouquet, *arguments: str) -> str:
    """Run a `flwr` command on the fleet; return what it printed."""
    done = subprocess.run(
        [FLWR, *arguments],
        env=fleet.environment | QUIET,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_id(output: str) -> str:
    match = STARTED.search(output)
    assert match is not None, output
    return match[1]


def row(fleet: Bouquet, run: str) -> dict[str, Any]:
    """What the SuperLink says of a run."""
    answer: dict[str, Any] = json.loads(flwr(fleet, "ls", CONNECTION, "--run-id", run, "--format", "json"))["runs"][0]
    return answer


def report(app: str, output: str) -> Report:
    """The JSON that the ServerApp printed."""
    match = re.search(rf"^{app} (\{{.*\}})$", output, re.MULTILINE)
    assert match is not None, output
    found: Report = json.loads(match[1])
    return found


def submit(fleet: Bouquet, app: str, run_config: str = "", *options: str) -> str:
    """Submit a run; return what `flwr run` printed."""
    config = ("--run-config", run_config) if run_config else ()
    return flwr(fleet, "run", str(APPS / app), CONNECTION, *config, *options)


def complete(fleet: Bouquet, app: str, run_config: str = "") -> Report:
    """Run an app to its end, which must be a good one; return its report."""
    output = submit(fleet, app, run_config, "--stream")
    assert row(fleet, run_id(output))["status"] == "finished:completed", output
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
    assert_descended_as_all_data_in_one_place(complete(warm, "numpy_mean", "num-server-rounds=8"), loss=2)


def test_an_app_in_scikit_learn_learns_from_the_partitions_of_its_nodes(warm: Bouquet) -> None:
    assert_learned_digits(complete(warm, "sklearn_logistic", "num-server-rounds=3"))


def test_an_app_keeps_its_context_over_rounds_and_all_three_types_of_message(warm: Bouquet) -> None:
    assert_counted(complete(warm, "stateful"), nodes=3, rounds=3)


def test_each_run_starts_anew_after_runs_of_its_own_app_and_of_another(warm: Bouquet) -> None:
    first = complete(warm, "stateful", "num-server-rounds=2")
    between = complete(warm, "numpy_mean", "num-server-rounds=2")
    last = complete(warm, "stateful", "num-server-rounds=2")
    assert_descended_as_all_data_in_one_place(between, loss=20)
    for found in (first, last):
        assert_counted(found, nodes=3, rounds=2)
        assert_module_state_is_the_runs_own(found)


def test_two_runs_at_the_same_time_are_both_right_and_share_nothing(warm: Bouquet) -> None:
    # The pauses let the other run's messages come between this one's, on each node; both are submitted at once,
    # as `flwr run` itself takes longer than a run where the machine is busy.
    with ThreadPoolExecutor() as pool:
        submitted = [
            pool.submit(submit, warm, "stateful", "pause=8.0"),
            pool.submit(submit, warm, "numpy_mean", "num-server-rounds=8"),
        ]
    counting, descending = (run_id(each.result()) for each in submitted)
    logs = {run: flwr(warm, "log", run, CONNECTION, "--stream") for run in (counting, descending)}
    rows = {run: row(warm, run) for run in logs}
    assert [rows[run]["status"] for run in logs] == ["finished:completed"] * 2, logs
    assert rows[descending]["running-at"] < rows[counting]["finished-at"]
    assert rows[counting]["running-at"] < rows[descending]["finished-at"]
    found = report("stateful", logs[counting])
    assert_counted(found, nodes=3, rounds=3)
    assert_module_state_is_the_runs_own(found)
    assert_descended_as_all_data_in_one_place(report("numpy_mean", logs[descending]), loss=2)


def test_the_context_counts_the_same_where_the_executor_is_flowers_own(warm: Bouquet, stock: Bouquet) -> None:
    config = "num-server-rounds=2 nodes=2"
    for fleet, nodes in ((warm, 3), (stock, 2)):
        assert_counted(complete(fleet, "stateful", config), nodes, rounds=2)
