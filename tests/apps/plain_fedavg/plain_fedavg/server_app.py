"""A ServerApp that runs Flower's FedAvg as Flower's quickstarts do, and prints what it got as JSON."""

import json
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class PausingFedAvg(FedAvg):
    """FedAvg that pauses between sampling and sending, so that a test can kill nodes in between."""

    pause_round = 0
    pause_seconds = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample nodes, and pause."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        if server_round == self.pause_round and self.pause_seconds:
            print(f"plain_fedavg {json.dumps({'sampled': len(messages)})}")
            time.sleep(self.pause_seconds)
        return messages


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and print the weights and the metrics by round."""
    config = context.run_config
    strategy = PausingFedAvg(
        fraction_train=float(config["fraction-train"]),
        fraction_evaluate=float(config["fraction-evaluate"]),
        min_available_nodes=int(config["min-available-nodes"]),
    )
    strategy.pause_round, strategy.pause_seconds = int(config["pause-round"]), float(config["pause-seconds"])
    timeout: dict[str, Any] = {"timeout": float(config["timeout"])} if config["timeout"] else {}
    rounds = int(config["num-server-rounds"])
    result = strategy.start(grid, ArrayRecord([np.zeros(4)]), num_rounds=rounds, **timeout)
    report = {
        "weights": [array.tolist() for array in result.arrays.to_numpy_ndarrays()],
        "train": {number: dict(metrics) for number, metrics in result.train_metrics_clientapp.items()},
        "evaluate": {number: dict(metrics) for number, metrics in result.evaluate_metrics_clientapp.items()},
    }
    print(f"plain_fedavg {json.dumps(report)}")
