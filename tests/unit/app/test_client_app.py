from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from app import client_app
from app.client_app import app
from app.exceptions import NodeError
from app.model import build_model

from .fake_grid import prepared


def context(**node_config: Any) -> Context:
    config = {"partition-id": 1, "num-partitions": 4, **node_config}
    config = {key: value for key, value in config.items() if value is not None}
    return Context(run_id=1, node_id=7, node_config=config, state=RecordDict(), run_config={"batch-size": 8})


def message(kind: str, folder: Path, server_round: int = 1) -> Message:
    config = ConfigRecord({"dataset": str(folder), "dataset-revision": "", "server-round": server_round})
    arrays = ArrayRecord(build_model(0.005, seed=42).get_weights())
    content = RecordDict({"arrays": arrays, "config": config})
    return prepared(Message(content, dst_node_id=7, message_type=kind))


def test_train_replies_with_weights_and_metrics(folder: Path) -> None:
    sent = message("train", folder)
    reply = app(sent, context()).content
    assert reply["metrics"].keys() == {"train_loss", "train_acc", "num-examples"}
    assert reply["metrics"]["num-examples"] == 20
    before = sent.content.array_records["arrays"].to_numpy_ndarrays()
    after = reply.array_records["arrays"].to_numpy_ndarrays()
    assert [array.shape for array in after] == [array.shape for array in before]
    assert any(np.abs(new - old).max() > 0 for new, old in zip(after, before, strict=True))


def test_the_same_message_gives_the_same_weights_and_another_round_gives_others(folder: Path) -> None:
    def weights(server_round: int) -> list[Any]:
        return (
            app(message("train", folder, server_round), context()).content.array_records["arrays"].to_numpy_ndarrays()
        )

    first, again, other = weights(1), weights(1), weights(2)
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_evaluate_replies_with_metrics_on_the_test_images(folder: Path) -> None:
    reply = app(message("evaluate", folder), context()).content
    assert reply["metrics"].keys() == {"eval_loss", "eval_acc", "num-examples"}
    assert reply["metrics"]["num-examples"] == 5
    assert not reply.array_records


def test_every_reply_names_its_partition(folder: Path) -> None:
    for kind in ["train", "evaluate", "query"]:
        assert app(message(kind, folder), context()).content["node"]["partition-id"] == 1


def test_query_replies_with_a_description_of_the_node(folder: Path) -> None:
    description = app(message("query", folder), context()).content.config_records["node"]
    assert description["num-examples"] == 25
    assert sum(description["label-counts"]) == 25  # type: ignore[arg-type]
    assert description["tensorflow"]
    assert description["device"]


def test_a_nodes_own_dataset_takes_precedence_over_the_messages(folder: Path) -> None:
    reply = app(message("evaluate", Path("/no/such")), context(dataset=str(folder)))
    assert reply.content["metrics"]["num-examples"] == 5


@pytest.mark.parametrize(
    ("node_config", "problem"),
    [
        ({"partition-id": None}, "partition-id=: is missing from the node config"),
        ({"partition-id": 4}, "partition-id=4: must be from 0 to 3, as num-partitions=4"),
        ({"partition-id": -1}, "partition-id=-1: must be from 0 to 3"),
        ({"partition-id": "one"}, "partition-id=one: must be a whole number"),
        ({"num-partitions": None}, "num-partitions=: is missing from the node config"),
        ({"num-partitions": 0}, "num-partitions=0: must be at least 1"),
        ({"dataset": "/no/such"}, "node-config dataset=/no/such: no such folder"),
    ],
)
def test_an_invalid_node_config_is_reported_in_one_line_after_the_partition_id(
    folder: Path, node_config: dict[str, Any], problem: str
) -> None:
    node = context(**node_config)
    with pytest.raises(NodeError) as raised:
        app(message("train", folder), node)
    assert str(raised.value).startswith(f"partition-id {node.node_config.get('partition-id')}: {problem}")
    assert "\n" not in str(raised.value)


def test_an_exception_is_reported_with_partition_id_and_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("by the node")

    monkeypatch.setattr(client_app, "learner", broken)
    with pytest.raises(NodeError) as raised:
        app(message("train", folder), context())
    text = str(raised.value)
    assert text.startswith("partition-id 1: Traceback")
    assert "in broken" in text
    assert "ZeroDivisionError: by the node" in text


def test_a_run_keeps_its_partitions_when_the_fleet_has_grown_since_its_start(folder: Path) -> None:
    sent = message("query", folder)
    sent.content.config_records["config"]["num-partitions"] = 2
    grown = context(**{"num-partitions": 8})
    assert app(sent, grown).content.config_records["node"]["num-examples"] == 50  # partition of 2, not of 8


def test_a_node_whose_partition_the_run_does_not_have_is_rejected(folder: Path) -> None:
    sent = message("train", folder)
    sent.content.config_records["config"]["num-partitions"] = 1
    with pytest.raises(NodeError, match="partition-id=1: this run started with 1 SuperNodes .* start another run"):
        app(sent, context())


def test_a_node_reports_its_partition_id_without_loading_the_partition() -> None:
    sent = prepared(Message(RecordDict(), dst_node_id=7, message_type="query.partition_id"))
    assert app(sent, context()).content.config_records["node"] == {"partition-id": 1}
