from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from app.client_app import app
from app.run_config import SettingError
from app.task import load_model

from .fake_grid import prepared, run_config


def context(**node_config: Any) -> Context:
    config = {"partition-id": 1, "num-partitions": 4, **node_config}
    return Context(run_id=1, node_id=7, node_config=config, state=RecordDict(), run_config=run_config(Path("/no/such")))


def message(kind: str, folder: Path, server_round: int = 1) -> Message:
    config = ConfigRecord({"dataset": str(folder), "dataset-revision": "", "server-round": server_round})
    arrays = ArrayRecord(load_model(0.005, seed=42).get_weights())
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


def test_query_replies_with_the_label_counts_of_both_sets(folder: Path) -> None:
    reply: Any = app(message("query", folder), context()).content["metrics"]
    assert reply["partition-id"] == 1
    assert len(reply["label-counts"]) == 10
    assert sum(reply["label-counts"]) == 25


def test_a_nodes_own_dataset_takes_precedence_over_the_messages(folder: Path) -> None:
    reply = app(message("evaluate", Path("/no/such")), context(dataset=str(folder)))
    assert reply.content["metrics"]["num-examples"] == 5


def test_a_missing_dataset_of_a_node_is_reported_in_one_line(folder: Path) -> None:
    with pytest.raises(SettingError, match="^node-config dataset=/no/such: no such folder; give a folder"):
        app(message("train", folder), context(dataset="/no/such"))
