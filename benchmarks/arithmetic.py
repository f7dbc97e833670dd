"""The arithmetic alone: the run's trainings and evaluations in one process, data in memory, graphs traced.

In one of two ways. `fit` is Keras' own, `Model.fit` and `Model.evaluate` on one compiled model: what a user would
write, and what figures are compared to. `loop` is how this app does the same (`app.model.Learner`).

Prints one line of JSON: seconds, and the accuracy after the last round. Run as
`python -m benchmarks.arithmetic fit|loop <folder> <supernodes> <rounds>`.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from app import dataset
from app.model import Weights, build_model, learner
from app.partition import ImageSet, load_partition
from app.run_config import RunConfig

CONFIG = RunConfig()
Held = Any
"""A set of images as a way of computing keeps it in memory."""


class Loop:
    """The app's own loop, as its nodes run it."""

    def hold(self, images: ImageSet) -> Held:
        """Return the images as they are: uint8."""
        return images

    def train(self, weights: Weights, held: Held, seed: list[int]) -> Weights:
        """Return the weights after the run's local epochs."""
        return learner().train(
            weights,
            held.images,
            held.labels,
            epochs=CONFIG.local_epochs,
            batch_size=CONFIG.batch_size,
            learning_rate=CONFIG.learning_rate,
            seed=seed,
        )[0]

    def evaluate(self, weights: Weights, held: Held) -> float:
        """Return the accuracy."""
        return learner().evaluate(weights, held.images, held.labels).accuracy


class Fit:
    """Keras' `fit` and `evaluate`, with Adam's state put back before each training."""

    def __init__(self) -> None:
        self._model = build_model(CONFIG.learning_rate, CONFIG.seed)
        self._fresh = [variable.numpy() for variable in self._model.optimizer.variables]

    def hold(self, images: ImageSet) -> Held:
        """Return the images as float32 in [0, 1], and their labels."""
        return np.asarray(images.images, np.float32) / np.float32(255), np.asarray(images.labels)

    def train(self, weights: Weights, held: Held, seed: list[int]) -> Weights:
        """Return the weights after the run's local epochs."""
        del seed  # `fit` shuffles with Keras' global seed
        self._model.set_weights(weights)
        for variable, fresh in zip(self._model.optimizer.variables, self._fresh, strict=True):
            variable.assign(fresh)
        self._model.fit(*held, epochs=CONFIG.local_epochs, batch_size=CONFIG.batch_size, verbose=0)
        trained: Weights = self._model.get_weights()
        return trained

    def evaluate(self, weights: Weights, held: Held) -> float:
        """Return the accuracy."""
        self._model.set_weights(weights)
        return float(self._model.evaluate(*held, verbose=0)[1])


WAYS: dict[str, Callable[[], Fit | Loop]] = {"fit": Fit, "loop": Loop}


def main() -> None:
    """Train half of the nodes and evaluate all of them, in each round, as the ServerApp would have them do."""
    way, folder, supernodes, rounds = WAYS[sys.argv[1]](), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    source = dataset.choose(folder)
    partitions = [
        load_partition(source, partition_id=k, num_partitions=supernodes, seed=CONFIG.seed) for k in range(supernodes)
    ]
    sizes = [len(each.train) for each in partitions]
    train, test = [way.hold(each.train) for each in partitions], [way.hold(each.test) for each in partitions]
    weights: Weights = build_model(CONFIG.learning_rate, CONFIG.seed).get_weights()
    few = way.hold(ImageSet(partitions[0].train.images[:64], partitions[0].train.labels[:64]))
    way.train(weights, few, [0, 0, 0])
    way.evaluate(weights, few)

    rng = np.random.default_rng(CONFIG.seed)
    accuracy = 0.0
    began = time.monotonic()
    for server_round in range(1, rounds + 1):
        chosen = rng.choice(supernodes, max(1, int(supernodes * CONFIG.fraction_train)), replace=False)
        trained = [way.train(weights, train[k], [CONFIG.seed, server_round, int(k)]) for k in chosen]
        weights = [
            np.average(layer, axis=0, weights=[sizes[k] for k in chosen]) for layer in zip(*trained, strict=True)
        ]
        scores = [way.evaluate(weights, held) for held in test]
        accuracy = float(np.average(scores, weights=[len(each.test) for each in partitions]))
    print(json.dumps({"seconds": time.monotonic() - began, "eval_acc": accuracy}))


if __name__ == "__main__":
    main()
