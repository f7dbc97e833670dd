"""Keras' `fit` and `evaluate` as graphs that are compiled and traced once per process, not for each message.

An epoch is one TensorFlow graph: Keras' own `train_step` in a loop. It computes the same as `Model.fit`, but does not
return to Python and copy arrays at every step.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from app.task import Images, Labels, load_model

Weights = list[NDArray[np.float32]]
EVALUATION_BATCH = 250  # images; without an optimizer step, the batch size does not change the result


class Trainer:
    """A compiled model. Its loss has FedProx's term if it is `proximal`; other strategies do not pay for the term."""

    def __init__(self, *, proximal: bool) -> None:
        model = self._model = load_model(learning_rate=0.001, seed=0)
        self.get_weights: Callable[[], Weights] = model.get_weights
        self._mu, self._global_weights = tf.Variable(0.0), list[Any]()
        if proximal:
            self._add_proximal_term()
        self._fresh_optimizer = [variable.numpy() for variable in model.optimizer.variables]
        # Keras creates its metrics at the first step; creating them here avoids tracing the graphs twice.
        model.test_step((tf.zeros((1, 32, 32, 3)), tf.zeros(1, tf.uint8)))
        # Unspecified sizes, so that partitions and batches of any size share one graph.
        shapes = [((None, 32, 32, 3), tf.uint8), ((None,), tf.uint8), ((None,), tf.int32), ((), tf.int32)]
        # AutoGraph would rewrite Keras' code during tracing, which takes a third of the tracing time.
        options: dict[str, Any] = {"input_signature": [tf.TensorSpec(*each) for each in shapes], "autograph": False}
        self.train_graph = tf.function(partial(_in_batches, model.train_step), **options)
        self.test_graph = tf.function(partial(_in_batches, model.test_step), **options)

    def set_weights(self, weights: Weights) -> None:
        """Start from these weights: those of the global model."""
        self._model.set_weights(weights)
        for variable, value in zip(self._global_weights, weights, strict=False):  # none without the proximal term
            variable.assign(value)

    def fit(
        self, x: Images, y: Labels, *, epochs: int, batch_size: int, learning_rate: float, seed: list[int],
        proximal_mu: float = 0.0, verbose: bool = False,
    ) -> tuple[float, float]:  # fmt: skip
        """Train with a fresh Adam, and return the last epoch's mean loss and accuracy.

        The seed is that of shuffling and dropout. The same arguments give the same weights in any process.
        """
        rng = np.random.default_rng(seed)
        optimizer = self._model.optimizer
        for variable, fresh in zip(optimizer.variables, self._fresh_optimizer, strict=True):
            variable.assign(fresh)
        optimizer.learning_rate = learning_rate
        self._mu.assign(proximal_mu)
        dropout_seed = int(rng.integers(2**31))
        for layer in self._model.layers:
            if isinstance(layer, layers.Dropout):
                layer.seed_generator.state.assign([dropout_seed, 0])
        images, labels = tf.constant(x), tf.constant(y)
        for epoch in range(1, epochs + 1):
            self._model.reset_metrics()
            order = rng.permutation(len(x)).astype(np.int32)
            self.train_graph(images, labels, tf.constant(order), tf.constant(batch_size))
            scores = self._scores()
            if verbose:
                print(f"Epoch {epoch}: loss {scores[0]:.4f}, accuracy {scores[1]:.4f}")
        return scores

    def evaluate(self, x: Images, y: Labels) -> tuple[float, float]:
        """Return the mean loss and accuracy."""
        self._model.reset_metrics()
        self.test_graph(tf.constant(x), tf.constant(y), tf.range(len(x)), tf.constant(EVALUATION_BATCH))
        return self._scores()

    def _add_proximal_term(self) -> None:
        """Add mu / 2 * |w - w_global|^2 to the loss that Keras' `train_step` minimizes."""
        model, keras_loss = self._model, self._model.compute_loss
        self._global_weights = [tf.Variable(weight.numpy()) for weight in model.trainable_weights]

        def compute_loss(*arguments: Any, **options: Any) -> Any:
            pairs = zip(model.trainable_weights, self._global_weights, strict=True)
            distance = tf.add_n([tf.nn.l2_loss(weight - start) for weight, start in pairs])  # has the factor 1/2
            return keras_loss(*arguments, **options) + self._mu * distance

        model.compute_loss = compute_loss

    def _scores(self) -> tuple[float, float]:
        metrics = self._model.get_metrics_result()
        return float(metrics["loss"]), float(metrics["accuracy"])


trainer = cache(Trainer)  # one for each process, which serves every batch size and learning rate


def _in_batches(step: Callable[[Any], Any], images: Any, labels: Any, order: Any, batch_size: Any) -> None:
    """Add a loop to the graph that calls Keras' `step` for each batch, with images as float32 in [0, 1]."""

    def body(start: Any) -> tuple[Any]:
        batch = order[start : start + batch_size]
        step((tf.cast(tf.gather(images, batch), tf.float32) / 255.0, tf.gather(labels, batch)))
        return (start + batch_size,)

    tf.while_loop(lambda start: start < tf.shape(order)[0], body, (tf.constant(0),), parallel_iterations=1)
