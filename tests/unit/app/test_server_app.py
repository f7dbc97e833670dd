from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from flwr.app import Context, Message

from app import client_app
from app.dataset import choose
from app.run_config import SettingError
from app.task import load_test_data

from .conftest import MakeFolder
from .fake_grid import Answer, start


def saved() -> Any:
    return keras.models.load_model("final_model.keras")


def failing(kind: str, *partition_ids: int) -> Answer:
    """Return a ClientApp that raises on these partitions."""

    def answer(message: Message, context: Context) -> Message:
        if message.metadata.message_type == kind and context.node_config["partition-id"] in partition_ids:
            raise ValueError("broken\nin two lines")
        return client_app.app(message, context)

    return answer


def test_a_run_writes_the_model_and_the_label_counts_into_the_current_folder(folder: Path, tmp_path: Path) -> None:
    start(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final_model.keras", "label_counts.png"]


def test_the_weights_are_those_of_the_app_before_the_fleet_took_over_its_duties(folder: Path) -> None:
    start(folder)
    sums = [float(np.abs(weight.astype(np.float64)).sum()) for weight in saved().get_weights()]
    # Of commit 4e84b72, the same run. Another CPU may round differently.
    expected = [58.50985997, 0.23548039, 773.67062190, 0.39622021, 604.33185924, 0.02049767]
    assert sums == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("when", "rounds"), [("off", []), ("final", [2]), ("every-round", [1, 2])])
def test_central_evaluation_happens_in_the_configured_rounds(
    folder: Path, when: str, rounds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flwr.serverapp.strategy import FedAvg

    results, stock = [], FedAvg.start

    def recorded(*arguments: Any, **options: Any) -> Any:
        results.append(stock(*arguments, **options))
        return results[0]

    monkeypatch.setattr(FedAvg, "start", recorded)
    start(folder, central_evaluation=when)
    central = results[0].evaluate_metrics_serverapp
    assert list(central) == rounds
    if rounds:
        x, y = load_test_data(choose(str(folder)))
        loss, accuracy = saved().evaluate(x.astype(np.float32) / 255, y, verbose=0)
        assert central[2]["eval_loss"] == pytest.approx(loss, abs=1e-4)
        assert central[2]["eval_acc"] == pytest.approx(accuracy, abs=1e-4)


def test_a_fleet_of_one_trains(folder: Path) -> None:
    start(folder, nodes=1)
    assert Path("final_model.keras").exists()


def test_a_node_that_cannot_count_its_labels_does_not_end_the_run(folder: Path) -> None:
    start(folder, answer=failing("query", 1))
    assert Path("final_model.keras").exists()


def test_a_run_whose_nodes_all_lack_data_ends_before_round_1_with_the_reason_in_one_line(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="no node can load its data: .*broken") as raised:
        start(folder, answer=failing("query", 0, 1, 2, 3))
    assert "\n" not in str(raised.value)


def test_a_dataset_too_small_for_the_fleet_is_rejected_before_round_1(make_folder: MakeFolder) -> None:
    with pytest.raises(RuntimeError, match="dataset=/.*: has 7 train images for 4 nodes, .*; give a larger dataset"):
        start(make_folder(train=7, test=0))


def test_central_evaluation_without_a_test_split_is_rejected_before_round_1(make_folder: MakeFolder) -> None:
    folder = make_folder(train=40, test=0)
    with pytest.raises(SettingError, match="its test split cannot be read"):
        start(folder, central_evaluation="final")
    start(folder)


def test_an_invalid_run_config_is_rejected_before_any_file_is_written(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="^fraction-train=2: "):
        start(folder, fraction_train=2)
    assert not list(tmp_path.iterdir())


def test_krum_is_rejected_with_too_few_nodes_that_train_in_a_round(folder: Path) -> None:
    krum: dict[str, Any] = {"strategy": "krum", "num_malicious_nodes": 1}
    with pytest.raises(SettingError, match="^num-malicious-nodes=1: krum needs 5 nodes .*, but 4 of 4 do; give a larg"):
        start(folder, **krum)
    with pytest.raises(SettingError, match="but 3 of 6 do"):
        start(folder, nodes=6, fraction_train=0.5, **krum)
    start(folder, nodes=5, **krum)
