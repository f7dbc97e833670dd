"""A ServerApp that compares FedAvg with gradient descent on all data in one place.

The mean of one step on each node, weighted by examples, equals one step on all of their data, so the two must agree.
"""

import json

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import FEATURES, load_data, loss, step

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, check that both agree, and print the result as JSON."""
    nodes, rounds = int(context.run_config["nodes"]), int(context.run_config["num-server-rounds"])
    strategy = FedAvg(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    result = strategy.start(grid, ArrayRecord([np.zeros(FEATURES)]), num_rounds=rounds)
    [weights] = result.arrays.to_numpy_ndarrays()
    np.save("weights.npy", weights)

    partitions = [load_data(partition_id) for partition_id in range(nodes)]
    inputs, targets = (np.concatenate(parts) for parts in zip(*partitions, strict=True))
    central = np.zeros(FEATURES)
    for _ in range(rounds):
        central = step(central, inputs, targets, float(context.run_config["learning-rate"]))
    report = {
        "weights": weights.tolist(),
        "central-weights": central.tolist(),
        "loss": result.evaluate_metrics_clientapp[rounds]["loss"],
        "central-loss": loss(central, inputs, targets),
    }
    if not np.allclose(weights, central, rtol=1e-9):
        raise RuntimeError(f"FedAvg differs from gradient descent on all data: {report}")
    print(f"numpy_mean {json.dumps(report)}")
