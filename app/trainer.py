"""Keras' `fit` and `evaluate`, as graphs that are compiled and traced once per process.

A node gets a message for each round and phase. Compiling the model and tracing its graphs takes longer than a second, so
one compiled model serves all messages.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from logging import INFO
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from flwr.common import log
from keras import layers
from numpy.typing import NDArray

from app.task import Images, Labels, load_model

Weights = list[NDArray[np.float32]]
EVALUATION_BATCH = 250  # images; without an optimizer step, the batch size does not change the result


class Scores(NamedTuple):
    """Mean loss, and the fraction of images that were classified correctly."""

    loss: float
    accuracy: float


class Trainer:
    """A compiled model that can be reused: `fit` depends only on its arguments and the weights that were set.

    An epoch is one TensorFlow graph: Keras' own `train_step` in a loop over shuffled batches. It computes the same as
    `Model.fit`, but does not return to Python and copy arrays at every step.

    Args:
        proximal: Whether the loss has FedProx's term. It is part of the graph, so other strategies do not pay for it.
    """

    def __init__(self, *, proximal: bool = False) -> None:
        self._model = load_model(learning_rate=0.001, seed=0)
        self._mu, self._global = tf.Variable(0.0), list[Any]()
        if proximal:
            self._add_proximal_term()
        self._fresh_optimizer = [variable.numpy() for variable in self._model.optimizer.variables]
        # Keras creates its metrics at the first step; creating them here avoids tracing the graphs twice.
        self._model.test_step((tf.zeros((1, 32, 32, 3)), tf.zeros(1, tf.uint8)))
        self._dropouts = [layer for layer in self._model.layers if isinstance(layer, layers.Dropout)]
        # Unspecified sizes, so that partitions and batches of any size share one graph.
        x, y = tf.TensorSpec((None, 32, 32, 3), tf.uint8), tf.TensorSpec((None,), tf.uint8)
        order, batch_size = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.int32)
        # AutoGraph would rewrite Keras' code during tracing, which takes a third of the tracing time.
        self._epoch = tf.function(self._run_epoch, input_signature=[x, y, order, batch_size], autograph=False)
        self._evaluation = tf.function(self._run_evaluation, input_signature=[x, y, batch_size], autograph=False)
        self.get_weights: Callable[[], Weights] = self._model.get_weights

    @property
    def traces(self) -> tuple[int, int]:
        """Number of times that the training graph and the evaluation graph have been traced."""
        return self._epoch.experimental_get_tracing_count(), self._evaluation.experimental_get_tracing_count()

    def set_weights(self, weights: Weights) -> None:
        """Start from these weights: those of the global model."""
        self._model.set_weights(weights)
        for variable, value in zip(self._global, weights, strict=False):  # no variables without the proximal term
            variable.assign(value)

    def fit(
        self,
        x: Images,
        y: Labels,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: list[int],
        proximal_mu: float = 0.0,
        verbose: bool = False,
    ) -> Scores:
        """Train with a fresh Adam, and return the means over the batches of the last epoch.

        Args:
            x: The images.
            y: Their labels.
            epochs: Number of passes over the images.
            batch_size: Images per step; the last batch of an epoch may be smaller.
            learning_rate: Adam's learning rate.
            seed: Seed of shuffling and dropout; the same seed gives the same weights in any process.
            proximal_mu: Weight of FedProx's term.
            verbose: Whether to log every epoch.
        """
        rng = np.random.default_rng(seed)
        optimizer = self._model.optimizer
        for variable, fresh in zip(optimizer.variables, self._fresh_optimizer, strict=True):
            variable.assign(fresh)
        optimizer.learning_rate = learning_rate
        self._mu.assign(proximal_mu)
        dropout_seed = int(rng.integers(2**31))
        for dropout in self._dropouts:
            dropout.seed_generator.state.assign([dropout_seed, 0])
        images, labels = tf.constant(x), tf.constant(y)
        for epoch in range(1, epochs + 1):
            self._model.reset_metrics()
            order = tf.constant(rng.permutation(len(x)).astype(np.int32))
            self._epoch(images, labels, order, tf.constant(batch_size))
            scores = self._scores()
            if verbose:
                log(INFO, "Epoch %d: loss %.4f, accuracy %.4f", epoch, scores.loss, scores.accuracy)
        return scores

    def evaluate(self, x: Images, y: Labels) -> Scores:
        """Return the means over the images."""
        self._model.reset_metrics()
        self._evaluation(tf.constant(x), tf.constant(y), tf.constant(EVALUATION_BATCH))
        return self._scores()

    def _add_proximal_term(self) -> None:
        """Add mu / 2 * |w - w_global|^2 to the loss that Keras' `train_step` minimizes."""
        model, keras_loss = self._model, self._model.compute_loss
        self._global = [tf.Variable(weight.numpy()) for weight in model.trainable_weights]

        def compute_loss(*arguments: Any, **options: Any) -> Any:
            weights = zip(model.trainable_weights, self._global, strict=True)
            distance = tf.add_n([tf.nn.l2_loss(weight - origin) for weight, origin in weights])  # has the factor 1/2
            return keras_loss(*arguments, **options) + self._mu * distance

        model.compute_loss = compute_loss

    def _run_epoch(self, images: Any, labels: Any, order: Any, batch_size: Any) -> None:
        def step(start: Any) -> None:
            batch = order[start : start + batch_size]
            self._model.train_step((_scaled(tf.gather(images, batch)), tf.gather(labels, batch)))

        _in_batches(tf.shape(order)[0], batch_size, step)

    def _run_evaluation(self, images: Any, labels: Any, batch_size: Any) -> None:
        def step(start: Any) -> None:
            stop = start + batch_size
            self._model.test_step((_scaled(images[start:stop]), labels[start:stop]))

        _in_batches(tf.shape(labels)[0], batch_size, step)

    def _scores(self) -> Scores:
        metrics = self._model.get_metrics_result()
        return Scores(float(metrics["loss"]), float(metrics["accuracy"]))


@cache
def trainer(*, proximal: bool = False) -> Trainer:
    """Return this process's `Trainer`; batch size and learning rate are inputs of its graphs."""
    return Trainer(proximal=proximal)


def _in_batches(count: Any, batch_size: Any, step: Callable[[Any], None]) -> None:
    """Add a loop to the graph that calls `step` with the start of each batch."""

    def body(start: Any) -> tuple[Any]:
        step(start)
        return (start + batch_size,)

    tf.while_loop(lambda start: start < count, body, (tf.constant(0),), parallel_iterations=1)


def _scaled(images: Any) -> Any:
    return tf.cast(images, tf.float32) / 255.0
