"""The model: a small CNN for 32x32 images, compiled and traced once per process.

A node gets one message per round and phase. Compiling the Keras model and tracing its graph takes more than a second.
One compiled model therefore serves all messages, and `Learner` resets it to the state of a fresh compile before each
use.
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

from app.device import device

Weights = list[NDArray[np.float32]]
Images = NDArray[np.uint8]
"""Shape (n, 32, 32, 3), values 0 to 255; the model takes them as float32 in [0, 1]."""
Labels = NDArray[np.uint8]
"""Shape (n,), values 0 to 9."""

TENSORFLOW_VERSION: str = tf.__version__
EVALUATION_BATCH = 250  # images; without an optimizer step, the batch size does not change the result


class Scores(NamedTuple):
    """Mean loss and accuracy over a set of images.

    Attributes:
        loss: Mean loss.
        accuracy: Fraction of images classified correctly.
    """

    loss: float
    accuracy: float


def build_model(learning_rate: float, seed: int) -> keras.Model:
    """Return the CNN of Flower's TensorFlow quickstart, compiled; the same seed gives the same initial weights.

    Args:
        learning_rate: Adam's learning rate.
        seed: Seed of the initial weights and of dropout.

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
    model.optimizer.build(model.trainable_variables)  # otherwise Keras warns when it loads the saved model
    return model


class Learner:
    """A compiled model that can be reused: the result of a call depends only on its arguments.

    An epoch is one TensorFlow graph: Keras' own `train_step` in a loop over shuffled batches. It computes the same as
    `Model.fit`, but does not return to Python and copy arrays at every step.
    """

    def __init__(self) -> None:
        self._model = build_model(learning_rate=0.001, seed=0)
        self._optimizer = self._model.optimizer
        self._fresh_optimizer = [variable.numpy() for variable in self._optimizer.variables]
        # Keras creates its metrics at the first step; creating them here avoids tracing the graphs twice.
        self._model.test_step((tf.zeros((1, 32, 32, 3)), tf.zeros(1, tf.uint8)))
        self._dropouts = [layer for layer in self._model.layers if isinstance(layer, layers.Dropout)]
        # Unspecified sizes, so that partitions and batches of any size share one graph.
        images = tf.TensorSpec((None, 32, 32, 3), tf.uint8)
        labels, order = tf.TensorSpec((None,), tf.uint8), tf.TensorSpec((None,), tf.int32)
        batch_size = tf.TensorSpec((), tf.int32)
        # AutoGraph would rewrite Keras' code during tracing, which takes a third of the tracing time.
        self._train_epoch = tf.function(
            self._run_epoch, input_signature=[images, labels, order, batch_size], autograph=False
        )
        self._evaluate = tf.function(
            self._run_evaluation, input_signature=[images, labels, batch_size], autograph=False
        )

    @property
    def traces(self) -> tuple[int, int]:
        """Number of times that the training graph and the evaluation graph have been traced."""
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
        """Return the weights after training with a fresh Adam; the same arguments give the same result in any process.

        Args:
            weights: The initial weights, in Keras' order.
            images: Images of shape (n, 32, 32, 3).
            labels: Labels of shape (n,).
            epochs: Number of passes over the images.
            batch_size: Images per step; the last batch of an epoch may be smaller.
            learning_rate: Adam's learning rate.
            seed: Seed of shuffling and dropout.

        Returns:
            The new weights, and for each epoch the mean of the scores of its batches during training.
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
        """Return the mean loss and accuracy of `weights`.

        Args:
            weights: The weights, in Keras' order.
            images: Images of shape (n, 32, 32, 3).
            labels: Labels of shape (n,).
        """
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
    """Return this process's `Learner`; one is enough, because batch size and learning rate are inputs of its graphs.

    Raises:
        SettingError: The node's GPU settings are wrong (see `app.device`).
    """
    device()  # must come before TensorFlow's first operation
    return Learner()


def _in_batches(count: Any, step: Callable[[Any], Any]) -> None:
    """Add a loop to the graph that calls `step` for each batch; it takes a batch's start and returns the next one's."""
    tf.while_loop(lambda start: start < count, lambda start: (step(start),), (tf.constant(0),), parallel_iterations=1)


def _scaled(images: Any) -> Any:
    return tf.cast(images, tf.float32) / 255.0
