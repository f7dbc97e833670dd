from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict

from app import client_app, dataset, fleet, server_app
from app.exceptions import FleetError, RunError, SettingError
from app.partition import load_test_split
from app.results import Results

from .conftest import MakeFolder
from .fake_grid import FIRST_NODE, Answer, FakeGrid

RUN_ID = 77


def start(
    folder: Path, *, answer: Answer = client_app.app, nodes: int = 4, grid_nodes: int | None = None, **config: Any
) -> FakeGrid:
    """Run the ServerApp on a fleet in this process."""
    run_config: dict[str, Any] = {"dataset": str(folder), "num-server-rounds": 2, "batch-size": 8}
    run_config |= {key.replace("_", "-"): value for key, value in config.items()}
    os.environ["BOUQUET_SUPERNODES"] = str(nodes)
    grid = FakeGrid(answer, nodes if grid_nodes is None else grid_nodes, run_config, {})
    server_app.main(grid, Context(RUN_ID, 0, {}, RecordDict(), run_config))
    return grid


@pytest.fixture(autouse=True)
def no_configured_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUQUET_SUPERNODES", "")
    monkeypatch.setattr(fleet, "POLL_SECONDS", 0.001)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def metrics(results: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((results / "latest" / "metrics.json").read_text())
    return read


def failing(kind: str, *partition_ids: int) -> Answer:
    """Return a ClientApp that raises on these partitions."""

    def answer(message: Message, context: Context) -> Message:
        if message.metadata.message_type == kind and context.node_config["partition-id"] in partition_ids:
            raise ValueError(f"partition-id {context.node_config['partition-id']}: broken")
        return client_app.app(message, context)

    return answer


def silent(message: Message, context: Context) -> Message | None:
    """Act as a ClientApp that replies in time on every partition except 2."""
    return None if context.node_config["partition-id"] == 2 else client_app.app(message, context)


def test_a_run_writes_model_metrics_plot_and_latest(folder: Path, results: Path) -> None:
    grid = start(folder, round_deadline=60)
    assert sorted(path.name for path in (results / str(RUN_ID)).iterdir()) == [
        "final_model.keras",
        "history.png",
        "metrics.json",
    ]
    assert (results / "latest").readlink() == Path(str(RUN_ID))
    assert (results / "latest" / "history.png").read_bytes().startswith(b"\x89PNG")
    assert grid.timeouts == [60, 60, 60, 60]


def test_metrics_have_every_round_and_node(folder: Path, results: Path) -> None:
    start(folder)
    written = metrics(results)
    assert (written["run-id"], written["status"], written["error"]) == (str(RUN_ID), "completed", None)
    assert written["versions"].keys() == {"flwr", "tensorflow", "keras"}
    assert written["dataset"] == {"name": str(folder), "source": "path"}
    assert written["run-config"]["batch-size"] == 8
    assert written["num-supernodes"] == 4
    assert [each["round"] for each in written["rounds"]] == [1, 2]
    for each in written["rounds"]:
        assert (each["train"]["replies"], each["train"]["failures"]) == (2, 0)
        assert (each["evaluate"]["replies"], each["evaluate"]["failures"]) == (4, 0)
        assert each["train"]["metrics"].keys() == {"train_loss", "train_acc"}
        assert each["seconds"] >= each["train"]["seconds"] + each["evaluate"]["seconds"] - 0.01
        assert each["central"] is None
        for node_id, values in each["evaluate"]["nodes"].items():
            assert values["partition-id"] == int(node_id) - FIRST_NODE
            assert values["num-examples"] == 5
        nodes = each["evaluate"]["nodes"].values()
        mean = np.average([n["eval_acc"] for n in nodes], weights=[n["num-examples"] for n in nodes])
        assert each["evaluate"]["metrics"]["eval_acc"] == pytest.approx(mean)


def test_a_repeated_run_gives_the_same_weights(folder: Path, results: Path) -> None:
    weights = []
    for _ in range(2):
        start(folder, fraction_train=1.0)
        weights.append(keras.models.load_model(results / "latest" / "final_model.keras").get_weights())
    assert all(np.allclose(one, two, atol=1e-6) for one, two in zip(*weights, strict=True))


def test_the_order_of_replies_does_not_change_the_weights(
    folder: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, in_order = [], FakeGrid.send_and_receive
    for order in (lambda replies: replies, reversed):
        monkeypatch.setattr(FakeGrid, "send_and_receive", lambda *a, order=order, **k: list(order(in_order(*a, **k))))
        start(folder, fraction_train=1.0)
        weights.append(keras.models.load_model(results / "latest" / "final_model.keras").get_weights())
    assert all(np.array_equal(one, two) for one, two in zip(*weights, strict=True))


@pytest.mark.parametrize(("when", "rounds"), [("off", []), ("final", [2]), ("every-round", [1, 2])])
def test_central_evaluation_happens_in_the_configured_rounds(
    folder: Path, results: Path, when: str, rounds: list[int]
) -> None:
    start(folder, central_evaluation=when)
    assert [each["round"] for each in metrics(results)["rounds"] if each["central"]] == rounds


def test_keras_evaluation_of_the_saved_model_matches_the_metrics(folder: Path, results: Path) -> None:
    start(folder, central_evaluation="final")
    test = load_test_split(dataset.choose(str(folder)))
    model = keras.models.load_model(results / "latest" / "final_model.keras")
    loss, accuracy = model.evaluate(test.images.astype(np.float32) / 255, test.labels, verbose=0)
    central = metrics(results)["rounds"][-1]["central"]
    assert central["eval_loss"] == pytest.approx(loss, abs=1e-4)
    assert central["eval_acc"] == pytest.approx(accuracy, abs=1e-4)


def test_a_fleet_of_one_trains(folder: Path, results: Path) -> None:
    start(folder, nodes=1)
    assert metrics(results)["rounds"][0]["train"]["replies"] == 1


def test_a_node_that_fails_is_counted_and_named_and_the_run_completes(folder: Path, results: Path) -> None:
    start(folder, answer=failing("train", 1), fraction_train=1.0)
    written = metrics(results)
    assert written["status"] == "completed"
    phase = written["rounds"][0]["train"]
    assert (phase["replies"], phase["failures"]) == (3, 1)
    assert "partition-id 1: broken" in phase["errors"][str(FIRST_NODE + 1)]


def test_a_node_that_does_not_reply_in_time_is_a_failure_under_its_id(folder: Path, results: Path) -> None:
    start(folder, answer=silent, fraction_train=1.0, round_deadline=9)
    phase = metrics(results)["rounds"][0]["evaluate"]
    assert phase["failures"] == 1
    assert phase["errors"][str(FIRST_NODE + 2)] == "partition-id unknown: no reply within round-deadline=9 s"


def absent(message: Message, context: Context) -> Message:
    """Act as a fleet whose node with partition 2 has left: the SuperLink replies for it."""
    if context.node_config["partition-id"] != 2:
        return client_app.app(message, context)
    reply = Message(Error(code=3, reason="Node Unavailable"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = 1
    return reply


def test_a_node_that_has_left_is_one_failure_under_its_own_id(folder: Path, results: Path) -> None:
    start(folder, answer=absent, fraction_train=1.0)
    phase = metrics(results)["rounds"][0]["evaluate"]
    assert (phase["replies"], phase["failures"]) == (3, 1)
    assert phase["errors"] == {str(FIRST_NODE + 2): "partition-id unknown: Node Unavailable"}


def test_a_node_that_joins_during_the_run_is_recorded_and_waits_for_the_next_run(folder: Path, results: Path) -> None:
    def growing(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train" and 7 not in grid.contexts:
            grid.add(7, partition_id=4, num_partitions=5)
        return client_app.app(message, context)

    run_config: dict[str, Any] = {"dataset": str(folder), "num-server-rounds": 2, "batch-size": 8}
    os.environ["BOUQUET_SUPERNODES"] = "4"
    grid = FakeGrid(growing, 4, run_config, {})
    server_app.main(grid, Context(RUN_ID, 0, {}, RecordDict(), run_config))
    written = metrics(results)
    assert (written["num-supernodes"], written["num-partitions"]) == (4, 4)
    (change,) = written["fleet-changes"]
    assert (change["node"], change["what"], change["partition-id"], change["takes-part"]) == ("7", "joined", 4, False)
    assert [each["evaluate"]["replies"] for each in written["rounds"]] == [4, 4]


def test_a_round_in_which_no_node_trained_fails_the_run_with_its_number_and_the_reasons(
    folder: Path, results: Path
) -> None:
    with pytest.raises(RunError, match="round 1: no node trained; .*partition-id 0: broken"):
        start(folder, answer=failing("train", 0, 1, 2, 3))
    written = metrics(results)
    assert written["status"] == "failed"
    assert "no node trained" in written["error"]
    assert written["rounds"][0]["train"]["failures"] == 2
    assert not (results / "latest" / "final_model.keras").exists()


def test_a_run_that_fails_late_keeps_the_last_model(folder: Path, results: Path) -> None:
    def answer(message: Message, context: Context) -> Message:
        if message.content.config_records["config"]["server-round"] == 2:
            raise ValueError("too late")
        return client_app.app(message, context)

    with pytest.raises(RunError, match="round 2"):
        start(folder, answer=answer)
    assert (results / "latest" / "last_model.keras").exists()
    assert len(metrics(results)["rounds"]) == 2


def spoiling(kind: str, spoil: Callable[[RecordDict], None], *partition_ids: int) -> Answer:
    """Return a ClientApp whose replies to such messages are spoilt on these partitions."""

    def answer(message: Message, context: Context) -> Message:
        reply = client_app.app(message, context)
        if message.metadata.message_type == kind and context.node_config["partition-id"] in partition_ids:
            spoil(reply.content)
        return reply

    return answer


def infinite_weights(content: RecordDict) -> None:
    weights = content.array_records["arrays"].to_numpy_ndarrays()
    weights[0] = weights[0] / np.float32(0)
    content["arrays"] = ArrayRecord(weights)


def fewer_weights(content: RecordDict) -> None:
    content["arrays"] = ArrayRecord(content.array_records["arrays"].to_numpy_ndarrays()[1:])


def metric(name: str, value: float | list[float]) -> Callable[[RecordDict], None]:
    def spoil(content: RecordDict) -> None:
        content.metric_records["metrics"][name] = value

    return spoil


@pytest.mark.parametrize(
    ("kind", "spoil", "reason"),
    [
        ("train", infinite_weights, "its weights are not finite"),
        ("train", fewer_weights, "its weights do not have the names and shapes of the global model's"),
        ("train", metric("train_loss", math.nan), "train_loss is nan"),
        ("train", metric("odd", 1.0), "its metrics are num-examples, odd, train_acc, train_loss; those of most nodes"),
        ("train", metric("train_loss", [1.0, 2.0]), "its metrics are num-examples, train_acc, train_loss[2]"),
        ("train", metric("num-examples", 0), "num-examples=0 is not a whole number of at least 1"),
        ("train", metric("num-examples", 10**9), "num-examples=1000000000 is more than 100 times the median, 20"),
        ("evaluate", metric("eval_loss", math.inf), "eval_loss is inf"),
        ("evaluate", metric("num-examples", 10**9), "num-examples=1000000000 is more than 100 times the median, 5"),
    ],
)
def test_a_reply_that_cannot_be_averaged_is_a_failure_of_its_node_and_the_run_completes(
    folder: Path, results: Path, kind: str, spoil: Callable[[RecordDict], None], reason: str
) -> None:
    start(folder, answer=spoiling(kind, spoil, 1), fraction_train=1.0)
    written = metrics(results)
    assert written["status"] == "completed"
    phase = written["rounds"][0][kind]
    assert (phase["replies"], phase["failures"]) == (3, 1)
    assert f"partition-id 1: left out: {reason}" in phase["errors"][str(FIRST_NODE + 1)]


def test_a_reply_that_is_left_out_does_not_change_the_model(folder: Path, results: Path) -> None:
    weights = []
    for answer in (failing("train", 1), spoiling("train", metric("num-examples", 10**9), 1)):
        start(folder, answer=answer, fraction_train=1.0)
        weights.append(keras.models.load_model(results / "latest" / "final_model.keras").get_weights())
    assert all(np.array_equal(one, two) for one, two in zip(*weights, strict=True))


@pytest.mark.parametrize(("kind", "spoil"), [("train", infinite_weights), ("evaluate", metric("eval_loss", math.nan))])
def test_a_run_whose_nodes_all_diverge_fails_with_the_learning_rate_and_valid_json(
    folder: Path, results: Path, kind: str, spoil: Callable[[RecordDict], None]
) -> None:
    with pytest.raises(RunError, match="round 1: the run has diverged: .*; give a lower learning-rate than 0.005"):
        start(folder, answer=spoiling(kind, spoil, 0, 1, 2, 3))
    written = (results / "latest" / "metrics.json").read_text()
    assert json.loads(written, parse_constant=pytest.fail)["status"] == "failed"


def test_a_learning_rate_far_too_high_ends_as_diverged(folder: Path, results: Path) -> None:
    with pytest.raises(RunError, match="the run has diverged: .*give a lower learning-rate than 1e"):
        start(folder, learning_rate=1e30)
    json.loads((results / "latest" / "metrics.json").read_text(), parse_constant=pytest.fail)


def test_the_model_is_saved_even_if_no_node_can_evaluate(folder: Path, results: Path) -> None:
    start(folder, answer=failing("evaluate", 0, 1, 2, 3))
    assert metrics(results)["rounds"][0]["evaluate"]["failures"] == 4
    assert (results / "latest" / "final_model.keras").exists()


def test_an_invalid_run_config_is_rejected_before_any_file_is_written(folder: Path, results: Path) -> None:
    with pytest.raises(SettingError, match="^fraction-train=2: "):
        start(folder, fraction_train=2)
    assert not results.exists()


def test_an_incomplete_fleet_fails_the_run_and_the_metrics_have_the_error(folder: Path, results: Path) -> None:
    with pytest.raises(FleetError, match="only 3 of 4 SuperNodes"):
        start(folder, nodes=4, grid_nodes=3, fleet_deadline=0.05)
    written = metrics(results)
    assert (written["status"], written["rounds"]) == ("failed", [])
    assert written["error"].startswith("fleet-deadline=0.05: ")


def test_a_dataset_too_small_for_the_fleet_is_rejected_before_round_1(make_folder: MakeFolder) -> None:
    with pytest.raises(SettingError, match="7 train images for 4 nodes"):
        start(make_folder(train=7, test=0))


def test_results_that_cannot_be_written_fail_the_run_before_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BOUQUET_RESULTS_DIR", str(tmp_path / "file"))
    with pytest.raises(SettingError, match=r"^BOUQUET_RESULTS_DIR=.*cannot be written \(.*\); set BOUQUET_RESULTS_DIR"):
        start(folder)


def test_a_full_disk_is_reported_and_no_partial_file_remains(tmp_path: Path) -> None:
    results = Results(RUN_ID, {}, {"BOUQUET_RESULTS_DIR": str(tmp_path)})

    def fill(file: Path) -> None:
        file.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        RunError, match=r"final_model\.keras: cannot be written \(No space left on device\); free some disk space"
    ):
        results.save("final_model.keras", fill)
    assert [path.name for path in results.folder.iterdir()] == ["metrics.json"]


def test_latest_points_to_the_newest_run(tmp_path: Path) -> None:
    for run_id in (1, 2):
        Results(run_id, {}, {"BOUQUET_RESULTS_DIR": str(tmp_path)})
    assert (tmp_path / "latest").readlink() == Path("2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "latest"]
