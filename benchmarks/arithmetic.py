"""The arithmetic alone: the run's trainings and evaluations in one process, data in memory, graphs traced.

Prints one line of JSON: seconds, and the accuracy after the last round. Run as
`python -m benchmarks.arithmetic <folder> <supernodes> <rounds>`.
"""

import json
import sys
import time

import numpy as np

from app import dataset
from app.model import Images, Labels, Weights, build_model, learner
from app.partition import load_partition
from app.run_config import RunConfig


def main() -> None:
    """Train half of the nodes and evaluate all of them, in each round, as the ServerApp would have them do."""
    folder, supernodes, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    config = RunConfig()
    source = dataset.choose(folder)
    partitions = [
        load_partition(source, partition_id=k, num_partitions=supernodes, seed=config.seed) for k in range(supernodes)
    ]
    weights: Weights = build_model(config.learning_rate, config.seed).get_weights()
    few = partitions[0].train.images[:64], partitions[0].train.labels[:64]
    _train(weights, *few, [0, 0, 0])
    learner().evaluate(weights, *few)

    rng = np.random.default_rng(config.seed)
    accuracy = 0.0
    began = time.monotonic()
    for server_round in range(1, rounds + 1):
        chosen = rng.choice(supernodes, max(1, int(supernodes * config.fraction_train)), replace=False)
        trained = [
            _train(weights, partitions[k].train.images, partitions[k].train.labels, [config.seed, server_round, int(k)])
            for k in chosen
        ]
        sizes = [len(partitions[k].train) for k in chosen]
        weights = [np.average(layer, axis=0, weights=sizes) for layer in zip(*trained, strict=True)]
        scores = [learner().evaluate(weights, each.test.images, each.test.labels) for each in partitions]
        accuracy = float(np.average([each.accuracy for each in scores], weights=[len(p.test) for p in partitions]))
    print(json.dumps({"seconds": time.monotonic() - began, "eval_acc": accuracy}))


def _train(weights: Weights, images: Images, labels: Labels, seed: list[int]) -> Weights:
    config = RunConfig()
    return learner().train(
        weights,
        images,
        labels,
        epochs=config.local_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=seed,
    )[0]


if __name__ == "__main__":
    main()
