"""A node's partition of the dataset: decoded once, split 80/20 by seed, the same in every process.

Two caches speed up later messages and later processes: one in this process, and one on disk under
``BOUQUET_CACHE_DIR``, of at most ``BOUQUET_CACHE_GIB`` (`app.array_cache`). The key of both has every value that the
partition depends on.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import array_cache, dataset
from app.dataset import Dataset
from app.exceptions import SettingError

TEST_FRACTION = 0.2
IMAGE_SIZE = (32, 32)
CLASSES = 10
DEFAULT_CACHE_GIB = 5
"""Where nothing sets `BOUQUET_CACHE_GIB`: CIFAR-10 partitioned in 29 ways."""


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels.

    Attributes:
        images: uint8 of shape (n, 32, 32, 3).
        labels: uint8 of shape (n,).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


@dataclass(frozen=True)
class Partition:
    """A node's images, split into disjoint train and test sets.

    Attributes:
        train: The images to train on.
        test: The images to evaluate on.
    """

    train: ImageSet
    test: ImageSet

    def __len__(self) -> int:
        """Return the number of images in both sets."""
        return len(self.train) + len(self.test)

    def label_counts(self) -> list[int]:
        """Return the number of images of each class, in both sets together."""
        labels = np.concatenate([self.train.labels, self.test.labels])
        return [int(count) for count in np.bincount(labels, minlength=CLASSES)]


_in_process: dict[tuple[object, ...], Any] = {}


def load_partition(source: Dataset, *, partition_id: int, num_partitions: int, seed: int) -> Partition:
    """Return one partition of the dataset's train split.

    The partitions are those of flwr-datasets' `IidPartitioner`: a seeded shuffle, then pieces of equal size.

    Args:
        source: The dataset.
        partition_id: The partition, from 0 to `num_partitions` - 1.
        num_partitions: Number of partitions that the split is divided into.
        seed: Seed of the shuffle and of the 80/20 split.

    Raises:
        SettingError: The dataset cannot be read, has too few images, or lacks a column.
    """
    key = (source.fingerprint(), source.name, "iid", num_partitions, partition_id, seed)
    if key not in _in_process:
        arrays = _cached_on_disk(key, lambda: _read_partition(source, partition_id, num_partitions, seed))
        _in_process[key] = Partition(
            ImageSet(arrays["train_images"], arrays["train_labels"]),
            ImageSet(arrays["test_images"], arrays["test_labels"]),
        )
    partition: Partition = _in_process[key]
    return partition


def load_test_split(source: Dataset) -> ImageSet:
    """Return the dataset's own test split, which is not part of any partition.

    Args:
        source: The dataset.

    Raises:
        SettingError: The dataset cannot be read, or has no test split.
    """
    key = (source.fingerprint(), source.name, "test split")
    if key not in _in_process:
        arrays = _cached_on_disk(key, lambda: _read_test_split(source))
        _in_process[key] = ImageSet(arrays["images"], arrays["labels"])
    images: ImageSet = _in_process[key]
    return images


def _cached_on_disk(key: tuple[object, ...], read: Any) -> array_cache.Arrays:
    folder = os.environ.get("BOUQUET_CACHE_DIR")
    if not folder or not key[0]:  # without a fingerprint, changed data would go unnoticed
        arrays: array_cache.Arrays = read()
        return arrays
    return array_cache.load_or_make(folder, key, read, _limit_bytes())


def _limit_bytes() -> int | None:
    """Return how much the cache may take; None for no limit.

    Raises:
        SettingError: `PARTITION_CACHE_GIB`, which the fleet passes on, is not a whole number.
    """
    value = os.environ.get("BOUQUET_CACHE_GIB") or str(DEFAULT_CACHE_GIB)
    if not value.isdecimal():
        raise SettingError("PARTITION_CACHE_GIB", value, "not a whole number", "give GiB, or 0 for no limit")
    return int(value) * 1024**3 or None


def _read_partition(source: Dataset, partition_id: int, num_partitions: int, seed: int) -> array_cache.Arrays:
    federated = _federated_dataset(source, source.fingerprint(), num_partitions, seed)
    partition = federated.load_partition(partition_id)
    decoded = _decode(source, partition)
    order = np.random.default_rng([seed, partition_id]).permutation(len(decoded))
    # At least one image in each set, even of the smallest partition.
    cut = min(max(round(len(decoded) * (1 - TEST_FRACTION)), 1), len(decoded) - 1)
    train, test = order[:cut], order[cut:]
    return {
        "train_images": decoded.images[train],
        "train_labels": decoded.labels[train],
        "test_images": decoded.images[test],
        "test_labels": decoded.labels[test],
    }


def _read_test_split(source: Dataset) -> array_cache.Arrays:
    federated = _federated_dataset(source, source.fingerprint(), num_partitions=1, seed=0, test_split=True)
    decoded = _decode(source, federated.load_split("test"))
    return {"images": decoded.images, "labels": decoded.labels}


@lru_cache(maxsize=2)
def _federated_dataset(
    source: Dataset, _fingerprint: str, num_partitions: int, seed: int, test_split: bool = False
) -> Any:
    """Return the opened dataset; flwr-datasets is imported here because it takes seconds, which a cache hit saves."""
    from flwr_datasets import FederatedDataset  # noqa: PLC0415
    from flwr_datasets.partitioner import IidPartitioner  # noqa: PLC0415

    name, options = source.name, dict[str, Any](revision=source.revision or None)
    if source.folder is not None:
        # Named by its files: if it were named by its folder, `datasets` would use a cached copy after the files change.
        splits = ["train", "test"] if test_split else ["train"]
        name, options = "parquet", {"data_files": {split: [*map(str, source.files(split))] for split in splits}}
    partitioner = IidPartitioner(num_partitions=num_partitions)
    federated = FederatedDataset(dataset=name, partitioners={"train": partitioner}, seed=seed, **options)
    try:
        train = federated.load_split("train")
    except Exception as error:
        raise source.problem(f"cannot be read ({type(error).__name__}: {error})".replace("\n", " ")) from error
    dataset.check_columns(source, set(train.column_names))
    dataset.check_size(source, len(train), num_partitions)
    return federated


def _decode(source: Dataset, rows: Any) -> ImageSet:
    """Return the decoded rows of a `datasets.Dataset`; Pillow needs a third of the time of `datasets`' decoder."""
    from datasets import Image  # noqa: PLC0415
    from PIL import Image as Pillow  # noqa: PLC0415

    encoded = rows.cast_column("img", Image(decode=False)).with_format(None)
    images = np.empty((len(rows), *IMAGE_SIZE, 3), np.uint8)
    for index, cell in enumerate(encoded["img"]):
        with Pillow.open(io.BytesIO(cell["bytes"]) if cell["bytes"] else cell["path"]) as image:
            if image.size != IMAGE_SIZE:
                raise source.problem(f"image {index} is {image.width}x{image.height}, but the model takes 32x32")
            images[index] = np.asarray(image.convert("RGB"))
    labels = np.asarray(encoded["label"], np.int64)
    if len(labels) and (labels.min() < 0 or labels.max() >= CLASSES):
        raise source.problem(f"has labels from {labels.min()} to {labels.max()}, but the model has classes 0 to 9")
    return ImageSet(images, labels.astype(np.uint8))
