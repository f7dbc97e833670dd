"""The arithmetic alone: a run's training and evaluation in one process, with data in memory and graphs traced.

    python -m benchmarks.arithmetic fit|loop FOLDER SUPERNODES ROUNDS

`fit` uses Keras' `Model.fit` and `Model.evaluate` on one compiled model. This is what a user would write, and the
baseline of all ratios. `loop` uses the app's own loop (`app.model.Learner`). The output is one line of JSON: the
seconds and the accuracy after the last round.
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
Prepared = Any
"""A set of images and labels in the form that `Fit` or `Loop` keeps in memory."""


class Loop:
    """The app's own loop, as its nodes run it."""

    def prepare(self, images: ImageSet) -> Prepared:
        """Return the images unchanged: the loop takes uint8."""
        return images

    def train(self, weights: Weights, data: Prepared, seed: list[int]) -> Weights:
        """Return the weights after one round's local epochs."""
        return learner().train(
            weights,
            data.images,
            data.labels,
            epochs=CONFIG.local_epochs,
            batch_size=CONFIG.batch_size,
            learning_rate=CONFIG.learning_rate,
            seed=seed,
        )[0]

    def evaluate(self, weights: Weights, data: Prepared) -> float:
        """Return the accuracy, from 0 to 1."""
        return learner().evaluate(weights, data.images, data.labels).accuracy


class Fit:
    """Keras' `fit` and `evaluate`, with Adam's state reset before each training."""

    def __init__(self) -> None:
        self._model = build_model(CONFIG.learning_rate, CONFIG.seed)
        self._fresh = [variable.numpy() for variable in self._model.optimizer.variables]

    def prepare(self, images: ImageSet) -> Prepared:
        """Return the images as float32 in [0, 1], and their labels."""
        return np.asarray(images.images, np.float32) / np.float32(255), np.asarray(images.labels)

    def train(self, weights: Weights, data: Prepared, seed: list[int]) -> Weights:
        """Return the weights after one round's local epochs."""
        del seed  # unused: `fit` shuffles with Keras' global seed
        self._model.set_weights(weights)
        for variable, fresh in zip(self._model.optimizer.variables, self._fresh, strict=True):
            variable.assign(fresh)
        self._model.fit(*data, epochs=CONFIG.local_epochs, batch_size=CONFIG.batch_size, verbose=0)
        trained: Weights = self._model.get_weights()
        return trained

    def evaluate(self, weights: Weights, data: Prepared) -> float:
        """Return the accuracy, from 0 to 1."""
        self._model.set_weights(weights)
        return float(self._model.evaluate(*data, verbose=0)[1])


WAYS: dict[str, Callable[[], Fit | Loop]] = {"fit": Fit, "loop": Loop}


def main() -> None:
    """In each round, train half of the nodes and evaluate all of them, as in a run; print the seconds and accuracy."""
    way, folder, supernodes, rounds = WAYS[sys.argv[1]](), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    source = dataset.choose(folder)
    partitions = [
        load_partition(source, partition_id=k, num_partitions=supernodes, seed=CONFIG.seed) for k in range(supernodes)
    ]
    sizes = [len(each.train) for each in partitions]
    train, test = [way.prepare(each.train) for each in partitions], [way.prepare(each.test) for each in partitions]
    weights: Weights = build_model(CONFIG.learning_rate, CONFIG.seed).get_weights()
    warm_up = way.prepare(ImageSet(partitions[0].train.images[:64], partitions[0].train.labels[:64]))
    way.train(weights, warm_up, [0, 0, 0])
    way.evaluate(weights, warm_up)

    rng = np.random.default_rng(CONFIG.seed)
    accuracy = 0.0
    started = time.monotonic()
    for server_round in range(1, rounds + 1):
        chosen = rng.choice(supernodes, max(1, int(supernodes * CONFIG.fraction_train)), replace=False)
        trained = [way.train(weights, train[k], [CONFIG.seed, server_round, int(k)]) for k in chosen]
        weights = [
            np.average(layer, axis=0, weights=[sizes[k] for k in chosen]) for layer in zip(*trained, strict=True)
        ]
        scores = [way.evaluate(weights, data) for data in test]
        accuracy = float(np.average(scores, weights=[len(each.test) for each in partitions]))
    print(json.dumps({"seconds": time.monotonic() - started, "eval_acc": accuracy}))


if __name__ == "__main__":
    main()
