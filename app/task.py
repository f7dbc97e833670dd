"""The model and the data."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from app import array_cache
from app.dataset import Dataset
from app.run_config import PARTITIONERS, SettingError

IMAGE_SIZE, CLASSES = (32, 32), 10
DEFAULT_CACHE_GIB = "5"
"""Where nothing sets `BOUQUET_CACHE_GIB`: CIFAR-10 partitioned in 29 ways."""
Images = NDArray[np.uint8]
"""Shape (n, 32, 32, 3), values 0 to 255; the trainer scales them to float32 in [0, 1], batch by batch."""
Labels = NDArray[np.uint8]
"""Shape (n,), values 0 to 9."""


def load_model(learning_rate: float, seed: int) -> keras.Model:
    """Return a simple CNN for CIFAR-10, compiled; the same seed gives the same initial weights."""
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


def load_data(
    dataset: Dataset, partition_id: int, num_partitions: int, run_config: Mapping[str, Any]
) -> tuple[Images, Labels, Images, Labels]:
    """Return a partition of the train split: x_train, y_train, x_test, y_test; the same in every process.

    It is divided into 80 % train and 20 % test images by the run-config's seed, so no image is ever in both.

    Raises:
        SettingError: The dataset cannot be read or is unsuitable, or cannot be partitioned in this way.
    """
    partitioner = run_config["partitioner"]
    parameters = tuple(run_config[key] for key in PARTITIONERS[partitioner])
    seed = run_config["seed"]
    return _load_partition(dataset, dataset.fingerprint(), partitioner, parameters, num_partitions, partition_id, seed)


@lru_cache(maxsize=1)
def load_test_data(dataset: Dataset) -> tuple[Images, Labels]:
    """Return the dataset's own test split, which is not part of any partition; raise a `SettingError` without one."""

    def read() -> array_cache.Arrays:
        federated = _open(dataset, dataset.fingerprint(), "iid", (), num_partitions=1, seed=0, splits=("train", "test"))
        x, y = _decode(dataset, federated.load_split("test"))
        return {"x": x, "y": y}

    arrays = _on_disk((dataset.fingerprint(), dataset.name, "test split"), read)
    return arrays["x"], arrays["y"]


@lru_cache(maxsize=32)  # in Flower's simulation, a process serves many nodes
def _load_partition(
    dataset: Dataset, fingerprint: str, partitioner: str, parameters: Any, num_partitions: int, number: int, seed: int
) -> tuple[Images, Labels, Images, Labels]:
    def read() -> array_cache.Arrays:
        federated = _open(dataset, fingerprint, partitioner, parameters, num_partitions, seed)
        try:
            partition = federated.load_partition(number)
        except ValueError as error:
            hint = "choose other parameters, a larger dataset or fewer SuperNodes"
            raise SettingError("partitioner", partitioner, f"partition {number}: {error}", hint) from error
        x, y = _decode(dataset, partition)
        if len(y) < 2:  # noqa: PLR2004
            raise dataset.problem(f"gives partition {number} only {len(y)} image", "choose another partitioner")
        order = np.random.default_rng([seed, number]).permutation(len(y))
        cut = min(max(round(len(y) * 0.8), 1), len(y) - 1)
        train, test = order[:cut], order[cut:]
        return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}

    arrays = _on_disk((fingerprint, dataset.name, partitioner, *parameters, num_partitions, number, seed), read)
    return arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"]


def _on_disk(key: array_cache.Key, read: Callable[[], array_cache.Arrays]) -> array_cache.Arrays:
    """Return the arrays from the cache in ``BOUQUET_CACHE_DIR``: decoding CIFAR-10 takes longer than training on it."""
    folder, fingerprint = os.environ.get("BOUQUET_CACHE_DIR"), key[0]
    if not folder or not fingerprint:  # without a fingerprint, changed data would go unnoticed
        return read()
    limit = os.environ.get("BOUQUET_CACHE_GIB") or DEFAULT_CACHE_GIB
    if not limit.isdecimal():
        raise SettingError("PARTITION_CACHE_GIB", limit, "not a whole number", "give GiB, or 0 for no limit")
    return array_cache.load_or_make(folder, key, read, int(limit) * 1024**3 or None)


@lru_cache(maxsize=2)
def _open(
    dataset: Dataset,
    _fingerprint: str,
    partitioner: str,
    parameters: Any,
    num_partitions: int,
    seed: int,
    splits: tuple[str, ...] = ("train",),
) -> Any:
    """Return the `FederatedDataset`."""
    # Not at the top: importing them takes seconds, which a hit in the cache saves.
    from flwr_datasets import FederatedDataset  # noqa: PLC0415
    from flwr_datasets.partitioner import (  # noqa: PLC0415
        DirichletPartitioner,
        IidPartitioner,
        PathologicalPartitioner,
    )

    name, options = dataset.name, dict[str, Any](revision=dataset.revision or None)
    if dataset.folder is not None:
        # Named by its files: if it were named by its folder, `datasets` would use a cached copy after the files change.
        name, options = "parquet", {"data_files": {split: [*map(str, dataset.files(split))] for split in splits}}
    division = {
        "iid": lambda: IidPartitioner(num_partitions),
        "dirichlet": lambda: DirichletPartitioner(num_partitions, "label", *parameters, seed=seed),
        "pathological": lambda: PathologicalPartitioner(num_partitions, "label", *parameters, seed=seed),
    }[partitioner]()
    federated = FederatedDataset(dataset=name, partitioners={"train": division}, seed=seed, **options)
    try:
        train = federated.load_split("train")
    except Exception as error:
        raise dataset.problem(f"cannot be read ({type(error).__name__}: {error})".replace("\n", " ")) from error
    dataset.check(train.column_names, len(train), num_partitions)
    return federated


def _decode(dataset: Dataset, rows: Any) -> tuple[Images, Labels]:
    """Return the images and labels of a `datasets.Dataset`; Pillow needs a third of the time of its own decoder."""
    from datasets import Image  # noqa: PLC0415
    from PIL import Image as Pillow  # noqa: PLC0415

    encoded = rows.cast_column("img", Image(decode=False)).with_format(None)
    images = np.empty((len(rows), *IMAGE_SIZE, 3), np.uint8)
    for number, cell in enumerate(encoded["img"]):
        with Pillow.open(io.BytesIO(cell["bytes"]) if cell["bytes"] else cell["path"]) as image:
            if image.size != IMAGE_SIZE:
                raise dataset.problem(f"image {number} is {image.width}x{image.height}, but the model takes 32x32")
            images[number] = np.asarray(image.convert("RGB"))
    labels = np.asarray(encoded["label"], np.int64)
    if len(labels) and (labels.min() < 0 or labels.max() >= CLASSES):
        raise dataset.problem(f"has labels from {labels.min()} to {labels.max()}, but the model has classes 0 to 9")
    return images, labels.astype(np.uint8)
