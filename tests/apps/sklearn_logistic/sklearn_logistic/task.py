"""The digits, split into the nodes' partitions and a test set, and the model."""

import warnings
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

CLASSES, FEATURES = 10, 64
_TEST = 5  # every fifth digit

Arrays = list[np.ndarray[Any, Any]]


def load_train(partition_id: int, num_partitions: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a node's images (n, 64) in [0, 1] and their labels (n,)."""
    images, labels = load_digits(return_X_y=True)
    mine = [i for i in range(len(labels)) if i % _TEST][partition_id::num_partitions]
    return images[mine] / 16, labels[mine]


def load_test() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the images (n, 64) and labels (n,) that no node trains on."""
    images, labels = load_digits(return_X_y=True)
    return images[::_TEST] / 16, labels[::_TEST]


def initial_arrays() -> Arrays:
    """Return coefficients (10, 64) and intercepts (10,) of zeros."""
    return [np.zeros((CLASSES, FEATURES)), np.zeros(CLASSES)]


def build_model(arrays: Arrays, iterations: int = 1) -> LogisticRegression:
    """Return a model with these coefficients and intercepts, from which training continues."""
    model = LogisticRegression(max_iter=iterations, warm_start=True)
    model.classes_ = np.arange(CLASSES)
    model.coef_, model.intercept_ = arrays
    return model


def fit(model: LogisticRegression, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Arrays:
    """Return the coefficients and intercepts after training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few iterations per round need not converge
        model.fit(images, labels)
    return [model.coef_, model.intercept_]
