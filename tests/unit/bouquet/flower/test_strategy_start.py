"""The fleet records any strategy, leaves its result alone, and keeps one bad node from ending a run."""

import json
import math
import random
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from bouquet.errors import FleetError, RunError, SettingError
from bouquet.flower import recorded_run as recorded_run_module

from .strategy_fakes import (
    FIRST_NODE,
    RUN_ID,
    Answer,
    failing,
    initial_arrays,
    make_grid,
    metrics,
    partition,
    reply,
    run,
    start,
    trained,
    trees,
)

pytestmark = pytest.mark.usefixtures("flower_as_it_was")

Make = Callable[[], Strategy]

STRATEGIES: dict[str, Make] = {
    "FedAvg": lambda: FedAvg(fraction_train=0.6),
    "FedProx": lambda: flower.FedProx(proximal_mu=0.1),
    "FedAdam": flower.FedAdam,
    "FedAdagrad": flower.FedAdagrad,
    "FedYogi": flower.FedYogi,
    "FedAvgM": lambda: flower.FedAvgM(server_momentum=0.9),
    "FedMedian": flower.FedMedian,
    "FedTrimmedAvg": flower.FedTrimmedAvg,
    "Krum": lambda: flower.Krum(num_malicious_nodes=1),
    "MultiKrum": lambda: flower.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=2),
    "Bulyan": lambda: flower.Bulyan(num_malicious_nodes=0),
    "QFedAvg": lambda: flower.QFedAvg(client_learning_rate=0.1),
    "DP, server, fixed": lambda: flower.DifferentialPrivacyServerSideFixedClipping(FedAvg(), 0.1, 2.0, 5),
    "DP, client, fixed": lambda: flower.DifferentialPrivacyClientSideFixedClipping(FedAvg(), 0.1, 2.0, 5),
    "DP, server, adaptive": lambda: flower.DifferentialPrivacyServerSideAdaptiveClipping(FedAvg(), 0.1, 5),
    "DP, client, adaptive": lambda: flower.DifferentialPrivacyClientSideAdaptiveClipping(FedAvg(), 0.1, 5),
}
TREES: dict[str, Make] = {"FedXgbBagging": flower.FedXgbBagging, "FedXgbCyclic": flower.FedXgbCyclic}


def spoiling(kind: str, spoil: Callable[[RecordDict], None], *partition_ids: int) -> Answer:
    def answer(message: Message) -> Message:
        given = trained(message)
        if message.metadata.message_type == kind and partition(message) in partition_ids:
            spoil(given.content)
        return given

    return answer


def infinite_weights(content: RecordDict) -> None:
    weights = content.array_records["arrays"].to_numpy_ndarrays()
    content["arrays"] = ArrayRecord([weights[0] / np.float32(0), weights[1]])
    content["arrays"] = ArrayRecord(
        dict(zip(["weight", "bias"], content.array_records["arrays"].values(), strict=True))
    )


def fewer_weights(content: RecordDict) -> None:
    content["arrays"] = ArrayRecord({"weight": content.array_records["arrays"]["weight"]})


def metric(name: str, value: float | list[float]) -> Callable[[RecordDict], None]:
    def spoil(content: RecordDict) -> None:
        content.metric_records["metrics"][name] = value

    return spoil


def no_metrics(content: RecordDict) -> None:
    del content["metrics"]


def test_every_strategy_of_flower_is_in_this_test() -> None:
    classes = {getattr(flower, name) for name in flower.__all__} - {Strategy, Result}
    assert {type(make()) for make in (STRATEGIES | TREES).values()} == classes


@pytest.mark.parametrize("name", STRATEGIES | TREES)
def test_a_strategy_gives_the_same_result_as_without_the_fleet(name: str, tmp_path: Path) -> None:
    make = (STRATEGIES | TREES)[name]
    answer = trees if name in TREES else trained
    first = ArrayRecord([np.array([], dtype=np.uint8)]) if name in TREES else initial_arrays()

    def central(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord({"score": float(sum(each.numpy().sum() for each in arrays.values())) + server_round})

    random.seed(1)
    np.random.seed(1)
    grid = make_grid(tmp_path, answer)
    alone = make().start(grid, first, num_rounds=3, evaluate_fn=central)

    random.seed(1)
    np.random.seed(1)
    recorded = start(make(), answer, tmp_path, num_rounds=3, initial_arrays=first, evaluate_fn=central)

    assert len(alone.arrays) > 0
    for one, two in zip(alone.arrays.to_numpy_ndarrays(), recorded.arrays.to_numpy_ndarrays(), strict=True):
        assert np.array_equal(one, two)
    assert (str(alone), alone.arrays.keys()) == (str(recorded), recorded.arrays.keys())

    written = metrics(tmp_path)
    assert (written["strategy"], written["status"]) == (type(make()).__name__, "completed")
    rounds = written["rounds"]
    assert [each["round"] for each in rounds] == [0, 1, 2, 3]
    assert [each["central"] for each in rounds] == [dict(alone.evaluate_metrics_serverapp[r]) for r in range(4)]
    for entry in rounds[1:]:
        assert entry["train"]["metrics"] == dict(alone.train_metrics_clientapp[entry["round"]])
        assert entry["evaluate"]["metrics"] == dict(alone.evaluate_metrics_clientapp[entry["round"]])
        assert (entry["train"]["failures"], entry["evaluate"]["failures"]) == (0, 0)
    assert written["exchanges"] == []


def test_the_record_has_every_node_and_there_is_a_plot(tmp_path: Path) -> None:
    start(FedAvg(fraction_train=0.4), trained, tmp_path)
    written = metrics(tmp_path)
    assert (written["run-id"], written["error"], written["run-config"]) == (str(RUN_ID), None, {"rounds": 2})
    assert (written["num-supernodes"], written["num-partitions"], written["fleet-changes"]) == (5, 5, [])
    for entry in written["rounds"]:
        assert (entry["train"]["replies"], entry["evaluate"]["replies"]) == (2, 5)
        assert entry["seconds"] >= entry["train"]["seconds"] + entry["evaluate"]["seconds"] - 0.01
        for node_id, values in entry["evaluate"]["nodes"].items():
            k = int(node_id) - FIRST_NODE
            assert values == {
                "partition-id": k,
                "eval_acc": 0.1 * k,
                "eval_loss": 1.0 - 0.1 * k,
                "num-examples": 10 + k,
            }
    folder = tmp_path / "results" / str(RUN_ID)
    assert sorted(path.name for path in folder.iterdir()) == ["history.png", "metrics.json"]
    assert (folder / "history.png").read_bytes() == b"plot"


def test_the_working_directory_is_the_results_folder(tmp_path: Path) -> None:
    grid = make_grid(tmp_path, trained)
    run(grid, lambda: Path("model.txt").write_text("model"), tmp_path)
    assert (tmp_path / "results" / str(RUN_ID) / "model.txt").read_text() == "model"
    assert (tmp_path / "results" / "latest").readlink() == Path(str(RUN_ID))


def test_a_plot_of_the_apps_own_is_kept(tmp_path: Path) -> None:
    grid = make_grid(tmp_path, trained)

    def main() -> None:
        Path("history.png").write_text("mine")
        FedAvg().start(grid, initial_arrays(), 1)

    run(grid, main, tmp_path)
    assert (tmp_path / "results" / "latest" / "history.png").read_text() == "mine"


def test_a_plot_that_cannot_be_drawn_does_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_matplotlib(rounds: object) -> None:
        raise ModuleNotFoundError("No module named 'matplotlib'")

    monkeypatch.setattr(recorded_run_module, "plot_history", no_matplotlib)
    start(FedAvg(), trained, tmp_path)
    assert metrics(tmp_path)["status"] == "completed"
    assert "history.png was not written: No module named 'matplotlib'" in caplog.text


@pytest.mark.parametrize(("given", "waited"), [({}, 60), ({"timeout": 7}, 7), ({"timeout": None}, None)])
def test_the_apps_own_timeout_wins_over_the_fleets(given: dict[str, Any], waited: float | None, tmp_path: Path) -> None:
    grid = make_grid(tmp_path, trained)
    run(grid, lambda: FedAvg().start(grid, initial_arrays(), 1, **given), tmp_path)
    assert grid.waits == [waited, waited]


def test_a_node_that_fails_is_named_and_the_run_completes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start(FedAvg(), failing("train", 1), tmp_path)
    phase = metrics(tmp_path)["rounds"][0]["train"]
    assert (phase["replies"], phase["failures"]) == (4, 1)
    assert phase["errors"] == {str(FIRST_NODE + 1): "partition-id 1: broken"}
    assert caplog.text.count("partition-id 1: broken") == 2, "once in each round"


class Silent(FedAvg):
    """A strategy that logs nothing about failures."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        usable = [each for each in replies if not each.has_error()]
        return usable[0].content.array_records["arrays"], None


def test_the_failure_of_a_node_is_logged_for_a_strategy_that_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start(Silent(), failing("train", 1), tmp_path)
    assert caplog.text.count("partition-id 1: broken") == 2


def test_a_node_that_does_not_reply_in_time_is_a_failure(tmp_path: Path) -> None:
    start(FedAvg(), lambda message: None if partition(message) == 2 else trained(message), tmp_path)
    errors = metrics(tmp_path)["rounds"][0]["train"]["errors"]
    assert errors == {str(FIRST_NODE + 2): "partition-id 2: no reply within ROUND_DEADLINE=60 s"}


def test_nodes_that_leave_between_sampling_and_sending_are_failures(tmp_path: Path) -> None:
    grid = make_grid(tmp_path, trained, nodes=10)

    class Leaving(FedAvg):
        def configure_train(self, *arguments: Any, **options: Any) -> Iterable[Message]:
            messages = list(super().configure_train(*arguments, **options))
            grid.online = grid.online[2:]
            return messages

    run(grid, lambda: Leaving(min_available_nodes=10).start(grid, initial_arrays(), 2), tmp_path)
    written = metrics(tmp_path)
    assert written["rounds"][0]["train"]["errors"].keys() == {"100", "101"}
    assert all("the node has left" in each for each in written["rounds"][0]["train"]["errors"].values())
    assert [each["evaluate"]["replies"] for each in written["rounds"]] == [8, 6]
    assert [change["round"] for change in written["fleet-changes"]] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "make", [Silent, FedAvg, lambda: flower.FedAdam(min_train_nodes=5)], ids=["own", "avg", "adam"]
)
def test_a_round_in_which_no_node_trained_ends_the_run_with_the_reasons(make: Make, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="^round 1: no node trained; .*node 100 \\(partition-id 0\\): broken"):
        start(make(), failing("train", 0, 1, 2, 3, 4), tmp_path)
    written = metrics(tmp_path)
    assert written["status"] == "failed"
    assert "no node trained" in written["error"]
    assert written["rounds"][0]["train"]["failures"] == 5


def test_a_run_that_fails_late_keeps_the_last_arrays(tmp_path: Path) -> None:
    def answer(message: Message) -> Message:
        if message.content.config_records["config"]["server-round"] == 3:
            raise ValueError("too late")
        return trained(message)

    good = start(FedAvg(), trained, tmp_path, num_rounds=2)
    assert not (tmp_path / "results" / "latest" / "last_arrays.npz").exists()
    with pytest.raises(RunError, match="round 3: no node trained"):
        start(FedAvg(), answer, tmp_path, num_rounds=3)
    kept = np.load(tmp_path / "results" / "latest" / "last_arrays.npz")
    assert list(kept) == ["weight", "bias"]
    assert all(np.array_equal(kept[name], good.arrays[name].numpy()) for name in kept)
    assert len(metrics(tmp_path)["rounds"]) == 3


@pytest.mark.parametrize(
    ("kind", "spoil", "reason"),
    [
        ("train", infinite_weights, "its weights are not finite"),
        ("train", fewer_weights, "its weights do not have the names and shapes of the global model's"),
        ("train", metric("train_loss", math.nan), "train_loss is nan"),
        ("train", metric("odd", 1.0), "its metrics are norm_bit, num-examples, odd, train_loss; those of most nodes"),
        ("train", metric("train_loss", [1.0, 2.0]), "its metrics are norm_bit, num-examples, train_loss[2]"),
        ("train", metric("num-examples", 0), "num-examples=0 is not a number above 0"),
        ("train", metric("num-examples", 10**9), "num-examples=1000000000 is more than 10000 times the median, 23"),
        ("train", no_metrics, "0 metric records instead of 1"),
        ("evaluate", metric("eval_loss", math.inf), "eval_loss is inf"),
        ("evaluate", metric("num-examples", 10**9), "num-examples=1000000000 is more than 10000 times the median, 13"),
    ],
)
def test_a_reply_that_cannot_be_averaged_is_a_failure_of_its_node_and_the_run_completes(
    kind: str, spoil: Callable[[RecordDict], None], reason: str, tmp_path: Path
) -> None:
    start(FedAvg(), spoiling(kind, spoil, 1), tmp_path)
    written = metrics(tmp_path)
    assert written["status"] == "completed"
    phase = written["rounds"][0][kind]
    assert (phase["replies"], phase["failures"]) == (4, 1)
    assert phase["errors"][str(FIRST_NODE + 1)].startswith(f"partition-id 1: left out: {reason}")


def test_a_reply_that_is_left_out_does_not_change_the_model(tmp_path: Path) -> None:
    one = start(FedAvg(), failing("train", 1), tmp_path)
    two = start(FedAvg(), spoiling("train", metric("num-examples", 10**9), 1), tmp_path)
    assert str(one.train_metrics_clientapp) == str(two.train_metrics_clientapp)
    assert all(np.array_equal(one.arrays[name].numpy(), two.arrays[name].numpy()) for name in one.arrays)


def test_a_metric_other_than_a_loss_may_be_undefined(tmp_path: Path) -> None:
    start(FedAvg(), spoiling("evaluate", metric("eval_acc", math.nan), 0, 1, 2, 3, 4), tmp_path)
    phase = metrics(tmp_path)["rounds"][0]["evaluate"]
    assert (phase["failures"], phase["metrics"]["eval_acc"]) == (0, None)


def test_an_apps_own_weight_need_not_be_an_integer(tmp_path: Path) -> None:
    def answer(message: Message) -> Message:
        return reply(message, initial_arrays(), share=0.25)

    start(FedAvg(weighted_by_key="share"), answer, tmp_path)
    assert [each["train"]["replies"] for each in metrics(tmp_path)["rounds"]] == [5, 5]


def test_nodes_may_all_reply_with_other_arrays_than_they_were_sent(tmp_path: Path) -> None:
    start(FedAvg(), spoiling("train", fewer_weights, 0, 1, 2, 3, 4), tmp_path, num_rounds=1)
    assert metrics(tmp_path)["rounds"][0]["train"]["replies"] == 5


@pytest.mark.parametrize("spoil", [infinite_weights, fewer_weights])
def test_a_bad_reply_skips_the_round_of_a_strategy_that_needs_every_node(
    spoil: Callable[[RecordDict], None], tmp_path: Path
) -> None:
    strategy = STRATEGIES["DP, server, fixed"]()
    start(strategy, spoiling("train", spoil, 1), tmp_path, num_rounds=1)
    phase = metrics(tmp_path)["rounds"][0]["train"]
    assert (phase["replies"], phase["failures"], phase["metrics"]) == (4, 1, {})


@pytest.mark.parametrize(("kind", "spoil"), [("train", infinite_weights), ("evaluate", metric("eval_loss", math.nan))])
def test_a_run_whose_nodes_all_diverge_fails_with_a_hint_and_valid_json(
    kind: str, spoil: Callable[[RecordDict], None], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="^round 1: the run has diverged: .*; lower the learning rate$"):
        start(FedAvg(), spoiling(kind, spoil, 0, 1, 2, 3, 4), tmp_path)
    written = (tmp_path / "results" / "latest" / "metrics.json").read_text()
    assert json.loads(written, parse_constant=pytest.fail)["status"] == "failed"


def test_a_round_without_evaluations_does_not_end_the_run(tmp_path: Path) -> None:
    start(FedAvg(), failing("evaluate", 0, 1, 2, 3, 4), tmp_path)
    written = metrics(tmp_path)
    assert (written["status"], written["rounds"][1]["evaluate"]["failures"]) == ("completed", 5)


def test_a_strategy_without_evaluation_has_empty_phases(tmp_path: Path) -> None:
    start(FedAvg(fraction_evaluate=0.0), trained, tmp_path)
    phase = metrics(tmp_path)["rounds"][1]["evaluate"]
    assert (phase["replies"], phase["failures"], phase["errors"]) == (0, 0, {})


class OwnLoop(FedAvg):
    """An app's strategy with a copy of Flower's loop, as in Flower's advanced examples."""

    def start(  # type: ignore[override]
        self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int = 3, timeout: float = 3600
    ) -> ArrayRecord:
        arrays = initial_arrays
        for current_round in range(1, num_rounds + 1):
            messages = self.configure_train(current_round, arrays, ConfigRecord(), grid)
            replies = grid.send_and_receive(messages=messages, timeout=timeout)
            arrays, _ = self.aggregate_train(server_round=current_round, replies=replies)  # type: ignore[assignment]
        return arrays


def loaded(own: type[FedAvg]) -> type[FedAvg]:
    """Define a class once more, as an app does that is loaded in a recorded run."""
    return type(own.__name__, (FedAvg,), {"start": own.start})


def test_a_strategy_with_a_loop_of_its_own_is_recorded(tmp_path: Path) -> None:
    grid = make_grid(tmp_path, failing("train", 3))
    run(grid, lambda: loaded(OwnLoop)().start(grid, initial_arrays(), 2), tmp_path)
    written = metrics(tmp_path)
    assert [each["round"] for each in written["rounds"]] == [1, 2]
    assert [each["train"]["failures"] for each in written["rounds"]] == [1, 1]
    assert (written["strategy"], written["exchanges"], grid.waits) == ("OwnLoop", [], [60, 60])


@pytest.mark.parametrize("catches_all", [True, False])
def test_a_strategy_whose_start_calls_flowers_is_recorded_once(catches_all: bool, tmp_path: Path) -> None:
    grid = make_grid(tmp_path, trained)

    def main() -> None:
        class CatchesAll(FedAvg):
            def start(self, *arguments: Any, **options: Any) -> Result:
                return super().start(*arguments, **options)

        class Names(FedAvg):
            def start(self, grid: Grid, arrays: ArrayRecord, evaluate_fn: Any) -> Result:  # type: ignore[override]
                return super().start(grid, arrays, 2, evaluate_fn=evaluate_fn)

        def central(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            return MetricRecord({"score": float(server_round)})

        if catches_all:
            CatchesAll().start(grid, initial_arrays(), num_rounds=2, evaluate_fn=central)
        else:
            Names().start(grid, initial_arrays(), evaluate_fn=central)

    run(grid, main, tmp_path)
    rounds = metrics(tmp_path)["rounds"]
    assert [(each["round"], each["central"]) for each in rounds] == [(n, {"score": float(n)}) for n in range(3)]
    assert grid.waits == [60] * 4


class Concatenates(Strategy):
    """A strategy that is no FedAvg, has other names for its parameters, and whose replies differ in shape."""

    def configure_train(self, number: int, model: ArrayRecord, options: ConfigRecord, fleet: Grid) -> list[Message]:
        content = RecordDict({"arrays": model, "config": options})
        return [Message(content, node, MessageType.TRAIN) for node in fleet.get_node_ids()]

    def aggregate_train(self, number: int, replies: Iterable[Message]) -> Any:
        arrays = [each.content.array_records["arrays"].to_numpy_ndarrays()[0] for each in replies]
        return ArrayRecord([np.concatenate(arrays)]), MetricRecord({"length": len(np.concatenate(arrays))})

    def configure_evaluate(self, *arguments: Any) -> list[Message]:
        return []

    def aggregate_evaluate(self, *arguments: Any) -> None:
        return None

    def summary(self) -> None:
        """Log nothing."""


def test_a_strategy_that_is_no_fedavg_is_recorded_and_its_replies_are_left_alone(tmp_path: Path) -> None:
    def answer(message: Message) -> Message:
        return reply(message, ArrayRecord([np.full(partition(message) + 1, math.nan)]), loss=math.nan)

    result = start(Concatenates(), answer, tmp_path, num_rounds=2)
    assert result.arrays.to_numpy_ndarrays()[0].shape == (15,)
    written = metrics(tmp_path)
    assert written["strategy"] == "Concatenates"
    assert [each["train"]["metrics"] for each in written["rounds"]] == [{"length": 15}] * 2
    assert [each["train"]["replies"] for each in written["rounds"]] == [5, 5]


def test_a_strategys_methods_are_its_own_again_after_start(tmp_path: Path) -> None:
    strategy = FedAvg(min_available_nodes=3)
    before = dict(vars(strategy))
    start(strategy, trained, tmp_path)
    assert vars(strategy) == before


def test_an_app_with_its_own_loop_has_an_entry_for_each_exchange(tmp_path: Path) -> None:
    def answer(message: Message) -> Message | None:
        k = partition(message)
        if k == 3:
            raise ValueError("no data")
        return None if k == 4 else reply(message, None, mean=float(k), histogram=[1, k])

    grid = make_grid(tmp_path, answer)

    def main() -> None:
        for kind in (MessageType.QUERY, "train.custom"):
            list(grid.send_and_receive([Message(RecordDict(), node, kind) for node in grid.get_node_ids()], timeout=5))

    run(grid, main, tmp_path)
    written = metrics(tmp_path)
    assert (written["strategy"], written["rounds"], written["status"]) == (None, [], "completed")
    assert written["seconds"] > 0
    assert [(each["exchange"], each["message-type"]) for each in written["exchanges"]] == [
        (1, "query"),
        (2, "train.custom"),
    ]
    for entry in written["exchanges"]:
        assert (entry["replies"], entry["failures"], entry["metrics"]) == (3, 2, {"mean": 1.0})
        assert entry["nodes"]["102"] == {"partition-id": 2, "mean": 2.0, "histogram": [1, 2]}
        assert entry["errors"] == {
            "103": "partition-id 3: no data",
            "104": "partition-id 4: no reply within timeout=5 s",
        }


def test_a_strategy_that_asks_for_more_nodes_than_the_run_has_is_refused(tmp_path: Path) -> None:
    message = "^FedAvg: min_available_nodes=20, but the run has 5 SuperNodes; start more .SUPERNODES=20 make up."
    with pytest.raises(FleetError, match=message):
        start(FedAvg(min_available_nodes=20), trained, tmp_path)


def test_the_strategy_that_is_wrapped_is_refused_too(tmp_path: Path) -> None:
    strategy = flower.DifferentialPrivacyServerSideFixedClipping(FedAvg(min_train_nodes=6), 0.1, 2.0, 5)
    with pytest.raises(FleetError, match="min_train_nodes=6"):
        start(strategy, trained, tmp_path)


def test_results_that_cannot_be_written_fail_the_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    with pytest.raises(SettingError, match=r"^BOUQUET_RESULTS_DIR=.*cannot be written \(.*\); set BOUQUET_RESULTS_DIR"):
        run(make_grid(tmp_path, trained), pytest.fail, tmp_path)


def test_a_run_in_progress_counts_as_interrupted(tmp_path: Path) -> None:
    grid = make_grid(tmp_path, trained)
    seen: list[dict[str, Any]] = []
    run(grid, lambda: seen.append(metrics(tmp_path)), tmp_path)
    assert (seen[0]["status"], seen[0]["error"]) == ("failed", "the run was interrupted")
    assert (metrics(tmp_path)["status"], metrics(tmp_path)["error"]) == ("completed", None)


def test_an_error_without_a_text_is_recorded_by_its_name(tmp_path: Path) -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(make_grid(tmp_path, trained), main, tmp_path)
    assert metrics(tmp_path)["error"] == "ZeroDivisionError"


def test_an_incomplete_fleet_fails_the_run_and_its_record_has_the_error(tmp_path: Path) -> None:
    grid = make_grid(tmp_path, trained)
    grid.online = grid.online[1:]
    with pytest.raises(FleetError, match="only 4 of 5 SuperNodes"):
        run(grid, lambda: FedAvg().start(grid, initial_arrays(), 1), tmp_path)
    written = metrics(tmp_path)
    assert (written["status"], written["rounds"]) == ("failed", [])
    assert written["error"].startswith("FLEET_DEADLINE=0.05: ")


def test_the_seconds_of_a_run_begin_when_the_fleet_is_complete(tmp_path: Path) -> None:
    grid = make_grid(tmp_path, trained, fleet_deadline=30.0)
    late = grid.online.pop()
    threading.Timer(1.0, grid.online.append, [late]).start()
    run(grid, lambda: FedAvg().start(grid, initial_arrays(), num_rounds=1), tmp_path)
    assert 0 < metrics(tmp_path)["seconds"] < 1
