"""The data and the arithmetic, shared by nodes and server."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEATURES = 4


def load_data(partition_id: int) -> tuple[Floats, Floats]:
    """Return a node's inputs (rows, FEATURES) and targets (rows,); their number and noise differ between nodes."""
    rng = np.random.default_rng(partition_id)
    inputs = rng.normal(size=(20 * (partition_id + 1), FEATURES))
    targets = inputs @ np.arange(1.0, FEATURES + 1) + rng.normal(scale=0.5, size=len(inputs))
    return inputs, targets


def step(weights: Floats, inputs: Floats, targets: Floats, learning_rate: float) -> Floats:
    """Return the weights after one step of gradient descent on the mean squared error."""
    return weights - learning_rate * 2 / len(inputs) * inputs.T @ (inputs @ weights - targets)


def loss(weights: Floats, inputs: Floats, targets: Floats) -> float:
    """Return the mean squared error."""
    return float(np.mean((inputs @ weights - targets) ** 2))
