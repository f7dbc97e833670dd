from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app import dataset, partition
from app.array_cache import Arrays
from app.dataset import Dataset
from app.exceptions import SettingError
from app.partition import ImageSet, load_partition, load_test_split

from .conftest import MakeFolder

ROOT = Path(__file__).parents[3]


def source(folder: Path) -> Dataset:
    return dataset.on_node(str(folder), "", None, {})


def numbers(images: ImageSet) -> list[int]:
    """Return the number of each image, which its first pixel encodes."""
    return [int(image[0, 0, 0]) + 256 * int(image[0, 0, 1]) for image in images.images]


def load(folder: Path, partition_id: int = 0, num_partitions: int = 4, seed: int = 42) -> partition.Partition:
    return load_partition(source(folder), partition_id=partition_id, num_partitions=num_partitions, seed=seed)


def test_the_partitions_of_a_fleet_hold_every_image_once(folder: Path) -> None:
    held = []
    for partition_id in range(4):
        part = load(folder, partition_id)
        held += numbers(part.train) + numbers(part.test)
    assert sorted(held) == list(range(100))


def test_a_fifth_is_for_evaluation_and_not_in_the_train_set(folder: Path) -> None:
    part = load(folder)
    assert (len(part.train), len(part.test)) == (20, 5)
    assert not set(numbers(part.train)) & set(numbers(part.test))


def test_images_keep_their_labels(folder: Path) -> None:
    for images in [load(folder).train, load(folder).test, load_test_split(source(folder))]:
        assert [number % 10 for number in numbers(images)] == images.labels.tolist()


def test_the_split_is_the_same_on_every_message_and_in_every_process(folder: Path) -> None:
    code = (
        "import sys, hashlib; from app import dataset; from app.partition import load_partition\n"
        "p = load_partition(dataset.on_node(sys.argv[1], '', None, {}), partition_id=1, num_partitions=4, seed=42)\n"
        "print(hashlib.sha256(p.train.images.tobytes() + p.test.images.tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    part = load(folder, 1)
    assert load(folder, 1) is part
    digest = hashlib.sha256(part.train.images.tobytes() + part.test.images.tobytes()).hexdigest()
    assert other.stdout.split()[-1] == digest


def test_another_seed_number_of_partitions_or_dataset_gives_another_partition(
    folder: Path, make_folder: MakeFolder
) -> None:
    first = numbers(load(folder).train)
    assert numbers(load(folder, seed=43).train) != first
    assert len(load(folder, num_partitions=2).train) == 40
    assert len(load(make_folder(train=40, test=0)).train) == 8


def test_a_changed_folder_is_read_again(make_folder: MakeFolder) -> None:
    changing = make_folder(train=40, test=0)
    assert len(load(changing).train) == 8
    larger = make_folder(train=80, test=0)
    file = "plain_text/train-00000-of-00001.parquet"
    (changing / file).write_bytes((larger / file).read_bytes())
    assert len(load(changing).train) == 16


def test_with_a_disk_cache_hit_datasets_is_not_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOUQUET_CACHE_DIR", str(tmp_path / "cache"))
    part = load(folder, 2)
    load_test_split(source(folder))
    code = (
        "import sys; from app import dataset; from app.partition import load_partition, load_test_split\n"
        "source = dataset.on_node(sys.argv[1], '', None, {})\n"
        "print(load_partition(source, partition_id=2, num_partitions=4, seed=42).label_counts())\n"
        "load_test_split(source)\n"
        "sys.exit(any(m in sys.modules for m in ('datasets', 'flwr_datasets', 'pyarrow', 'keras')))"
    )
    other = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert other.returncode == 0, other.stderr
    assert other.stdout.strip() == str(part.label_counts())


@pytest.mark.parametrize(("value", "limit"), [(None, 5 * 1024**3), ("", 5 * 1024**3), ("2", 2 * 1024**3), ("0", None)])
def test_the_disk_cache_is_limited_by_the_fleets_setting(
    value: str | None, limit: int | None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int | None] = []

    def load_or_make(_: object, __: object, make: Callable[[], Arrays], limit_bytes: int | None) -> Arrays:
        limits.append(limit_bytes)
        return make()

    monkeypatch.setattr("app.array_cache.load_or_make", load_or_make)
    monkeypatch.setenv("BOUQUET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("BOUQUET_CACHE_GIB", raising=False)
    if value is not None:
        monkeypatch.setenv("BOUQUET_CACHE_GIB", value)
    load(folder)
    assert limits == [limit]


def test_a_limit_that_is_no_number_names_the_setting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUQUET_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("BOUQUET_CACHE_GIB", "lots")
    with pytest.raises(SettingError, match="PARTITION_CACHE_GIB=lots: not a whole number"):
        load(folder)


def test_the_smallest_partition_has_one_train_and_one_test_image(make_folder: MakeFolder) -> None:
    part = load(make_folder(train=8, test=0), num_partitions=4)
    assert (len(part.train), len(part.test)) == (1, 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"train": 7, "test": 0}, "7 train images for 4 nodes"),
        ({"train": 20, "test": 0, "label": "fine_label"}, "no column label"),
        ({"train": 20, "test": 0, "size": (28, 28)}, "is 28x28, but the model takes 32x32"),
    ],
)
def test_an_unsuitable_folder_is_reported_in_one_line(
    make_folder: MakeFolder, options: dict[str, int], problem: str
) -> None:
    with pytest.raises(SettingError, match=problem) as raised:
        load(make_folder(**options))
    assert "\n" not in str(raised.value)


def test_an_empty_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no train-\*\.parquet"):
        load(tmp_path)


def test_a_folder_that_cannot_be_read_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "train-0.parquet").write_text("not parquet")
    with pytest.raises(SettingError, match="cannot be read") as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_label_counts_include_both_sets(folder: Path) -> None:
    part = load(folder)
    labels = np.concatenate([part.train.labels, part.test.labels]).tolist()
    assert part.label_counts() == [labels.count(label) for label in range(10)]
