"""A ServerApp that runs FedAvg and evaluates the coefficients on digits that no node trains on."""

import json

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import build_model, initial_arrays, load_test

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and print the result as JSON."""
    nodes, rounds = int(context.run_config["nodes"]), int(context.run_config["num-server-rounds"])
    strategy = FedAvg(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    result = strategy.start(grid, ArrayRecord(initial_arrays()), num_rounds=rounds, evaluate_fn=_evaluate)
    report = {
        "accuracy": [metrics["accuracy"] for metrics in result.evaluate_metrics_serverapp.values()],
        "loss": [metrics["loss"] for metrics in result.evaluate_metrics_clientapp.values()],
    }
    print(f"sklearn_logistic {json.dumps(report)}")


def _evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    images, labels = load_test()
    return MetricRecord({"accuracy": float(build_model(arrays.to_numpy_ndarrays()).score(images, labels))})
