"""A ServerApp that uses Flower's FedAvg and nothing else, and checks the final model."""

import json
import time

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, check that each round has added the mean of what the nodes add, and print the result as JSON."""
    config = context.run_config
    nodes, rounds, layers = (int(config[name]) for name in ("nodes", "num-server-rounds", "layers"))
    size = (int(config["model-mib"]) << 20) // 4 // layers
    strategy = FedAvg(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    b"x" * (int(config["server-hoard-mib"]) << 20)
    start = time.monotonic()
    result = strategy.start(grid, ArrayRecord([initial(layer, size) for layer in range(layers)]), num_rounds=rounds)
    seconds = time.monotonic() - start
    expected = rounds * sum(range(1, nodes + 1)) / nodes
    for layer, array in enumerate(result.arrays.values()):
        if not np.allclose(array.numpy(), initial(layer, size) + np.float32(expected), atol=1e-2):
            raise RuntimeError(f"layer {layer} of the final model is wrong")
    report = {"model-mib": config["model-mib"], "seconds": round(seconds, 1), "rounds": rounds}
    print(f"large_model {json.dumps(report)}")


def initial(layer: int, size: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """Return a layer's initial values: random, because equal parts of a model would be stored once."""
    return np.random.default_rng(layer).standard_normal(size, np.float32)
