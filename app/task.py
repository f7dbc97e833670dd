"""The model and the data."""

import io
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from app.array_cache import Arrays, load_or_make
from app.dataset import Dataset
from app.run_config import SettingError

Images = NDArray[np.uint8]  # shape (n, 32, 32, 3), values 0 to 255; the trainer scales a batch at a time
Labels = NDArray[np.uint8]  # shape (n,), values 0 to 9
Partitioner = tuple[str | float, ...]  # its name and its parameters
CLASSES = 10


def load_model(learning_rate: float, seed: int) -> keras.Model:
    """Define a simple CNN for CIFAR-10 and set Adam optimizer; the same seed gives the same initial weights."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(shape=(32, 32, 3)),
            layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5, seed=seed),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)  # otherwise Keras warns when it loads the saved model
    return model


@lru_cache(maxsize=32)  # in Flower's simulation, a process serves many nodes
def load_data(
    dataset: Dataset, partition_id: int, num_partitions: int, partitioner: Partitioner, seed: int
) -> tuple[Images, Labels, Images, Labels]:
    """Return a partition, 80% train and 20% test: x_train, y_train, x_test, y_test; a `SettingError` says why not.

    It is the same on every message and in every process, so no image is ever both trained on and tested.
    """

    def read() -> Arrays:
        federated = _open_dataset(dataset, num_partitions, partitioner, seed)
        try:
            partition = federated.load_partition(partition_id)
            if len(partition) == 1:
                raise ValueError(f"partition {partition_id} has only one image")
        except ValueError as error:  # there is no such division of these images
            hint = "give other parameters, a larger dataset or fewer SuperNodes"
            raise SettingError("partitioner", " ".join(map(str, partitioner)), str(error), hint) from error
        x, y = _decode(dataset, partition)
        order = np.random.default_rng([seed, partition_id]).permutation(len(y))
        cut = min(max(round(len(y) * 0.8), 1), len(y) - 1)  # at least one image in each
        train, test = order[:cut], order[cut:]
        return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}

    arrays = _cached(dataset, (*partitioner, num_partitions, partition_id, seed), read)
    return arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"]


@lru_cache(maxsize=1)
def load_test_data(dataset: Dataset) -> tuple[Images, Labels]:
    """Return the dataset's own test split, which is not part of any partition: x_test, y_test."""

    def read() -> Arrays:
        federated = _open_dataset(dataset, 1, ("iid",), 0)
        return dict(zip("xy", _decode(dataset, _load_split(dataset, federated, "test")), strict=True))

    arrays = _cached(dataset, ("test split",), read)
    return arrays["x"], arrays["y"]


def _cached(dataset: Dataset, key: Partitioner, read: Callable[[], Arrays]) -> Arrays:
    """Return the arrays from the cache in ``BOUQUET_CACHE_DIR``: decoding takes longer than training."""
    folder, limit = os.environ.get("BOUQUET_CACHE_DIR"), os.environ.get("BOUQUET_CACHE_GIB") or "5"
    if not folder or not dataset.revision:  # without a revision, changed data would go unnoticed
        return read()
    if not limit.isdecimal():
        raise SettingError("PARTITION_CACHE_GIB", limit, "not a whole number", "give GiB, or 0 for no limit")
    return load_or_make(folder, (dataset.name, dataset.revision, *key), read, int(limit) * 1024**3 or None)


@lru_cache(maxsize=2)
def _open_dataset(dataset: Dataset, num_partitions: int, partitioner: Partitioner, seed: int) -> Any:
    """Return the `FederatedDataset`. Importing its package takes seconds, which a hit in the cache saves."""
    from flwr_datasets import FederatedDataset  # noqa: PLC0415
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner, PathologicalPartitioner  # noqa: PLC0415

    division: Any = IidPartitioner(num_partitions)
    if partitioner[0] == "dirichlet":
        division = DirichletPartitioner(num_partitions, "label", *partitioner[1:], seed=seed)
    elif partitioner[0] == "pathological":
        division = PathologicalPartitioner(num_partitions, "label", *partitioner[1:], seed=seed)
    name, options = dataset.name, dict[str, Any](revision=dataset.revision or None)
    if dataset.folder is not None:
        # Named by its files: if it were named by its folder, `datasets` would use a cached copy after the files change.
        name, options = "parquet", {"data_files": dataset.files(dataset.folder)}
    federated = FederatedDataset(dataset=name, partitioners={"train": division}, seed=seed, **options)
    train = _load_split(dataset, federated, "train")
    if missing := sorted({"img", "label"} - {*train.column_names}):
        raise dataset.problem(f"has no column {' and '.join(missing)}, only {', '.join(sorted(train.column_names))}")
    if len(train) < 2 * num_partitions:
        problem = f"has {len(train)} train images for {num_partitions} nodes, and each needs at least 2"
        raise dataset.problem(problem, "give a larger dataset or fewer SuperNodes")
    return federated


def _load_split(dataset: Dataset, federated: Any, split: str) -> Any:
    try:
        return federated.load_split(split)
    except Exception as error:
        raise dataset.problem(f"its {split} split cannot be read ({type(error).__name__}: {error})") from error


def _decode(dataset: Dataset, rows: Any) -> tuple[Images, Labels]:
    """Return a `datasets.Dataset` as arrays; Pillow needs a third of the time of its own decoder."""
    from datasets import Image  # noqa: PLC0415
    from PIL import Image as Pillow  # noqa: PLC0415

    encoded = rows.cast_column("img", Image(decode=False)).with_format(None)
    images = np.empty((len(rows), 32, 32, 3), np.uint8)
    for number, cell in enumerate(encoded["img"]):
        with Pillow.open(io.BytesIO(cell["bytes"]) if cell["bytes"] else cell["path"]) as image:
            if image.size != (32, 32):
                raise dataset.problem(f"image {number} is {image.width}x{image.height}, but the model takes 32x32")
            images[number] = np.asarray(image.convert("RGB"))
    labels = np.asarray(encoded["label"], np.int64)
    if len(labels) and (labels.min() < 0 or labels.max() >= CLASSES):
        raise dataset.problem(f"has labels from {labels.min()} to {labels.max()}, but the model has classes 0 to 9")
    return images, labels.astype(np.uint8)
