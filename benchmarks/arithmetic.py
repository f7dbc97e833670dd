"""The arithmetic alone: a run's training and evaluation in one process, with data in memory and graphs traced.

    python -m benchmarks.arithmetic fit|loop FOLDER SUPERNODES ROUNDS

`fit` uses Keras' `Model.fit` and `Model.evaluate` on one compiled model. This is what a user would write, and the
baseline of all ratios. `loop` uses the app's own loop (`app.trainer.Trainer`). The output is one line of JSON: the
seconds and the accuracy after the last round.
"""

import json
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.dataset import choose
from app.task import Images, Labels, load_data, load_model
from app.trainer import Weights, trainer

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
CONFIG: dict[str, Any] = tomllib.loads(PYPROJECT.read_text())["tool"]["flwr"]["app"]["config"]
Prepared = Any
"""A set of images and labels in the form that `Fit` or `Loop` keeps in memory."""


class Loop:
    """The app's own loop, as its nodes run it."""

    def prepare(self, x: Images, y: Labels) -> Prepared:
        """Return the images unchanged: the loop takes uint8."""
        return x, y

    def train(self, weights: Weights, data: Prepared, seed: list[int]) -> Weights:
        """Return the weights after one round's local epochs."""
        trainer(proximal=False).set_weights(weights)
        trainer(proximal=False).fit(
            *data,
            epochs=CONFIG["local-epochs"],
            batch_size=CONFIG["batch-size"],
            learning_rate=CONFIG["learning-rate"],
            seed=seed,
        )
        return trainer(proximal=False).get_weights()

    def evaluate(self, weights: Weights, data: Prepared) -> float:
        """Return the accuracy, from 0 to 1."""
        trainer(proximal=False).set_weights(weights)
        return trainer(proximal=False).evaluate(*data)[1]


class Fit:
    """Keras' `fit` and `evaluate`, with Adam's state reset before each training."""

    def __init__(self) -> None:
        self._model = load_model(CONFIG["learning-rate"], CONFIG["seed"])
        self._fresh = [variable.numpy() for variable in self._model.optimizer.variables]

    def prepare(self, x: Images, y: Labels) -> Prepared:
        """Return the images as float32 in [0, 1], and their labels."""
        return np.asarray(x, np.float32) / np.float32(255), y

    def train(self, weights: Weights, data: Prepared, seed: list[int]) -> Weights:
        """Return the weights after one round's local epochs."""
        del seed  # unused: `fit` shuffles with Keras' global seed
        self._model.set_weights(weights)
        for variable, fresh in zip(self._model.optimizer.variables, self._fresh, strict=True):
            variable.assign(fresh)
        self._model.fit(*data, epochs=CONFIG["local-epochs"], batch_size=CONFIG["batch-size"], verbose=0)
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
    source, seed = choose(folder), CONFIG["seed"]
    partitions = [load_data(source, k, supernodes, ("iid",), seed) for k in range(supernodes)]
    sizes = [len(y_train) for _, y_train, _, _ in partitions]
    train = [way.prepare(x_train, y_train) for x_train, y_train, _, _ in partitions]
    test = [way.prepare(x_test, y_test) for _, _, x_test, y_test in partitions]
    weights: Weights = load_model(CONFIG["learning-rate"], seed).get_weights()
    warm_up = way.prepare(partitions[0][0][:64], partitions[0][1][:64])
    way.train(weights, warm_up, [0, 0, 0])
    way.evaluate(weights, warm_up)

    rng = np.random.default_rng(seed)
    accuracy = 0.0
    started = time.monotonic()
    for server_round in range(1, rounds + 1):
        chosen = rng.choice(supernodes, max(1, int(supernodes * CONFIG["fraction-train"])), replace=False)
        trained = [way.train(weights, train[k], [seed, server_round, int(k)]) for k in chosen]
        weights = [
            np.average(layer, axis=0, weights=[sizes[k] for k in chosen]) for layer in zip(*trained, strict=True)
        ]
        scores = [way.evaluate(weights, data) for data in test]
        accuracy = float(np.average(scores, weights=[len(y) for *_, y in partitions]))
    print(json.dumps({"seconds": time.monotonic() - started, "eval_acc": accuracy}))


if __name__ == "__main__":
    main()
