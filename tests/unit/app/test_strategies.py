"""Each strategy of the run-config against Flower's class, used directly in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedProx, FedYogi, Krum

from app.dataset import choose
from app.task import load_data, load_model
from app.trainer import Trainer

from .fake_grid import FakeGrid, prepared, start

NODES, ROUNDS = 4, 2
STRATEGIES: dict[str, tuple[FedAvg, dict[str, Any]]] = {
    "fedavg": (FedAvg(), {}),
    "fedprox": (FedProx(proximal_mu=0.3), {"proximal_mu": 0.3}),
    "fedadam": (FedAdam(), {}),
    "fedadam, its parameters": (
        FedAdam(eta=0.02, beta_1=0.8, beta_2=0.9, tau=0.01),
        {"eta": 0.02, "beta_1": 0.8, "beta_2": 0.9, "tau": 0.01},
    ),
    "fedyogi": (FedYogi(), {}),
    "fedmedian": (FedMedian(), {}),
    "krum": (Krum(), {}),
}


def train_directly(folder: Path, strategy: FedAvg, how: Any, mu: float) -> list[Any]:
    """Return the weights after the rounds, without messages, the ClientApp or the ServerApp."""
    model = Trainer(proximal=mu > 0)
    arrays = ArrayRecord(load_model(0.005, seed=42).get_weights())
    grid = FakeGrid(lambda message, context: message, NODES, {})
    for server_round in range(1, ROUNDS + 1):
        replies = []
        # Called for the state that it keeps; its messages are answered by hand.
        sent = list(strategy.configure_train(server_round, arrays, ConfigRecord(), grid))
        for node, message in enumerate(sorted(sent, key=lambda each: each.metadata.dst_node_id)):
            x, y, _, _ = load_data(choose(str(folder)), node, NODES, how, 42)
            model.set_weights(arrays.to_numpy_ndarrays())
            model.fit(x, y, epochs=1, batch_size=8, learning_rate=0.005, seed=[42, server_round, node], proximal_mu=mu)
            content: dict[str, Any] = {
                "arrays": ArrayRecord(model.get_weights()),
                "metrics": MetricRecord({"num-examples": len(x)}),
            }
            replies.append(Message(RecordDict(content), reply_to=prepared(message)))
        aggregated, _ = strategy.aggregate_train(server_round, replies)
        assert aggregated is not None
        arrays = aggregated
    return arrays.to_numpy_ndarrays()


def largest_difference(ours: list[Any], theirs: list[Any]) -> float:
    return max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True))


def final_weights() -> list[Any]:
    weights: list[Any] = keras.models.load_model("final_model.keras").get_weights()
    return weights


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_gives_the_weights_of_flowers_class(folder: Path, name: str) -> None:
    strategy, parameters = STRATEGIES[name]
    expected = train_directly(folder, strategy, ("iid",), parameters.get("proximal_mu", 0.0))
    start(folder, nodes=NODES, strategy=name.partition(",")[0], **parameters)
    difference = largest_difference(final_weights(), expected)
    print(f"{name}: {difference:g}")
    assert difference < 1e-5


@pytest.mark.parametrize(
    ("how", "changes"),
    [
        (("dirichlet", 0.9), {"partitioner": "dirichlet", "alpha": 0.9}),
        (("pathological", 3), {"partitioner": "pathological", "classes_per_node": 3}),
    ],
    ids=["dirichlet", "pathological"],
)
def test_a_partitioner_gives_the_weights_of_its_partitions(folder: Path, how: Any, changes: dict[str, Any]) -> None:
    expected = train_directly(folder, FedAvg(), how, 0.0)
    start(folder, nodes=NODES, **changes)
    difference = largest_difference(final_weights(), expected)
    print(f"{how}: {difference:g}")
    assert difference < 1e-5


def test_strategies_differ(folder: Path) -> None:
    weights = {}
    for name in ("fedavg", "fedadam", "fedyogi", "fedmedian", "krum"):
        start(folder, nodes=NODES, strategy=name)
        weights[name] = final_weights()
    for name in ("fedadam", "fedyogi", "fedmedian", "krum"):
        assert largest_difference(weights[name], weights["fedavg"]) > 1e-4
