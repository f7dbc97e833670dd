"""The model: a small CNN for 32x32 images, compiled and traced once per process.

A node gets a message per round and phase. Compiling Keras' model and tracing its graph for each of them would
cost more than a second every time, so one compiled model serves them all, and `Learner` puts it back to what
a fresh compile would give before each use.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

Weights = list[NDArray[np.float32]]
Images = NDArray[np.uint8]
"""(n, 32, 32, 3), 0 to 255; the model takes them as float32 in [0, 1]."""
Labels = NDArray[np.uint8]
"""(n,), 0 to 9."""

TENSORFLOW_VERSION: str = tf.__version__
EVALUATION_BATCH = 250  # images; evaluation has no optimizer step, so its batch size changes no result


class Scores(NamedTuple):
    """Mean loss and accuracy over a set of images."""

    loss: float
    accuracy: float


def build_model(learning_rate: float, seed: int) -> keras.Model:
    """Build and compile the quickstart's CNN; the same seed gives the same initial weights.

    Returns:
        A model from (batch, 32, 32, 3) float32 images in [0, 1] to (batch, 10) probabilities.
    """
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5, seed=seed),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)  # else a saved model lacks them, and Keras warns at its load
    return model


class Learner:
    """A compiled model that is reused: every call starts from the given weights and nothing else.

    An epoch is one TensorFlow graph: Keras' own `train_step` in a loop over shuffled batches. It does what
    `Model.fit` does, without a return to Python and a hand-over of arrays at every step.
    """

    def __init__(self) -> None:
        self._model = build_model(learning_rate=0.001, seed=0)
        self._optimizer = self._model.optimizer
        self._fresh_optimizer = [variable.numpy() for variable in self._optimizer.variables]
        # Keras makes its metrics at the first step: made here, they do not cost the graphs a second trace.
        self._model.test_step((tf.zeros((1, 32, 32, 3)), tf.zeros(1, tf.uint8)))
        self._dropouts = [layer for layer in self._model.layers if isinstance(layer, layers.Dropout)]
        # Open sizes, so that partitions and batches of any size share one graph.
        images = tf.TensorSpec((None, 32, 32, 3), tf.uint8)
        labels, order = tf.TensorSpec((None,), tf.uint8), tf.TensorSpec((None,), tf.int32)
        batch_size = tf.TensorSpec((), tf.int32)
        # AutoGraph, which would rewrite Keras' code as it is traced, is a third of the time that tracing takes.
        self._train_epoch = tf.function(
            self._run_epoch, input_signature=[images, labels, order, batch_size], autograph=False
        )
        self._evaluate = tf.function(
            self._run_evaluation, input_signature=[images, labels, batch_size], autograph=False
        )

    @property
    def traces(self) -> tuple[int, int]:
        """How often the graphs of training and of evaluation have been traced."""
        return (
            self._train_epoch.experimental_get_tracing_count(),
            self._evaluate.experimental_get_tracing_count(),
        )

    def train(
        self,
        weights: Weights,
        images: Images,
        labels: Labels,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: list[int],
    ) -> tuple[Weights, list[Scores]]:
        """Train from `weights` with a fresh Adam; the same arguments give the same result in any process.

        Args:
            weights: The model's weights, in Keras' order.
            images: (n, 32, 32, 3).
            labels: (n,).
            epochs: Passes over the images.
            batch_size: Images per step; the last batch of an epoch may be smaller.
            learning_rate: Adam's.
            seed: Numbers that seed shuffling and dropout.

        Returns:
            The new weights, and for each epoch the mean scores of its batches as they were trained on.
        """
        rng = np.random.default_rng(seed)
        self._reset(weights, learning_rate, dropout_seed=int(rng.integers(2**31)))
        x, y = tf.constant(images), tf.constant(labels)
        history = []
        for _ in range(epochs):
            self._model.reset_metrics()
            order = tf.constant(rng.permutation(len(images)).astype(np.int32))
            self._train_epoch(x, y, order, tf.constant(batch_size))
            history.append(self._scores())
        return self._model.get_weights(), history

    def evaluate(self, weights: Weights, images: Images, labels: Labels) -> Scores:
        """Return the mean loss and accuracy of `weights` on images (n, 32, 32, 3) with labels (n,)."""
        self._model.set_weights(weights)
        self._model.reset_metrics()
        self._evaluate(tf.constant(images), tf.constant(labels), tf.constant(EVALUATION_BATCH))
        return self._scores()

    def _reset(self, weights: Weights, learning_rate: float, dropout_seed: int) -> None:
        self._model.set_weights(weights)
        for variable, fresh in zip(self._optimizer.variables, self._fresh_optimizer, strict=True):
            variable.assign(fresh)
        self._optimizer.learning_rate = learning_rate
        for dropout in self._dropouts:
            dropout.seed_generator.state.assign([dropout_seed, 0])

    def _run_epoch(self, images: Any, labels: Any, order: Any, batch_size: Any) -> None:
        def step(start: Any) -> Any:
            batch = order[start : start + batch_size]
            self._model.train_step((_scaled(tf.gather(images, batch)), tf.gather(labels, batch)))
            return start + batch_size

        _in_batches(tf.shape(order)[0], step)

    def _run_evaluation(self, images: Any, labels: Any, batch_size: Any) -> None:
        def step(start: Any) -> Any:
            stop = start + batch_size
            self._model.test_step((_scaled(images[start:stop]), labels[start:stop]))
            return stop

        _in_batches(tf.shape(labels)[0], step)

    def _scores(self) -> Scores:
        metrics = self._model.get_metrics_result()
        return Scores(float(metrics["loss"]), float(metrics["accuracy"]))


@cache
def learner() -> Learner:
    """Return this process's only `Learner`: batch size and learning rate are inputs of its graphs."""
    return Learner()


def device() -> str:
    """Return what TensorFlow computes on: the first GPU's name, or ``CPU``."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU"
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))


def _in_batches(count: Any, step: Callable[[Any], Any]) -> None:
    """Call `step`, which takes where a batch starts and returns where the next one does, up to `count`: in a graph."""
    tf.while_loop(lambda start: start < count, lambda start: (step(start),), (tf.constant(0),), parallel_iterations=1)


def _scaled(images: Any) -> Any:
    return tf.cast(images, tf.float32) / 255.0
