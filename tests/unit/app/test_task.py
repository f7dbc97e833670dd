from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr_datasets import FederatedDataset
from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner, PathologicalPartitioner
from PIL import Image

from app.array_cache import Arrays
from app.dataset import Dataset, on_node
from app.run_config import SettingError
from app.task import Images, Labels, load_data, load_test_data

from .conftest import MakeFolder

ROOT = Path(__file__).parents[3]
Split = tuple[Images, Labels, Images, Labels]


def source(folder: Path) -> Dataset:
    return on_node(str(folder), "", None)


def numbers(images: Iterable[Any]) -> list[int]:
    """Return the number of each image, which its first pixel encodes."""
    return [int(image[0, 0, 0]) + 256 * int(image[0, 0, 1]) for image in images]


def load(folder: Path, partition_id: int = 0, num_partitions: int = 4, seed: int = 42, how: Any = ("iid",)) -> Split:
    return load_data(source(folder), partition_id, num_partitions, how, seed)


def test_the_partitions_of_a_fleet_hold_every_image_once(folder: Path) -> None:
    held = []
    for partition_id in range(4):
        x_train, _, x_test, _ = load(folder, partition_id)
        held += numbers(x_train) + numbers(x_test)
    assert sorted(held) == list(range(100))


def test_a_fifth_is_for_evaluation_and_not_in_the_train_set(folder: Path) -> None:
    x_train, y_train, x_test, y_test = load(folder)
    assert (len(x_train), len(y_train), len(x_test), len(y_test)) == (20, 20, 5, 5)
    assert not set(numbers(x_train)) & set(numbers(x_test))


def test_images_keep_their_labels(folder: Path) -> None:
    x_train, y_train, x_test, y_test = load(folder)
    for x, y in [(x_train, y_train), (x_test, y_test), load_test_data(source(folder))]:
        assert [number % 10 for number in numbers(x)] == y.tolist()


@pytest.mark.parametrize(
    ("how", "divide"),
    [
        (("iid",), IidPartitioner),
        (("dirichlet", 0.5), lambda n: DirichletPartitioner(n, partition_by="label", alpha=0.5, seed=7)),
        (
            ("pathological", 3),
            lambda n: PathologicalPartitioner(n, partition_by="label", num_classes_per_partition=3, seed=7),
        ),
    ],
    ids=["iid", "dirichlet", "pathological"],
)
def test_a_partition_is_the_one_of_flwr_datasets(folder: Path, how: Any, divide: Callable[[int], Any]) -> None:
    files = {"train": [str(file) for file in folder.rglob("train-*")]}
    federated = FederatedDataset(dataset="parquet", data_files=files, partitioners={"train": divide(3)}, seed=7)
    for partition_id in range(3):
        rows = federated.load_partition(partition_id)
        decoded = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in rows["img"]]
        expected = sorted(numbers(decoded))
        x_train, y_train, x_test, y_test = load(folder, partition_id, num_partitions=3, seed=7, how=how)
        assert sorted(numbers(x_train) + numbers(x_test)) == expected
        assert sorted([*y_train, *y_test]) == sorted(rows["label"])
        assert not set(numbers(x_train)) & set(numbers(x_test))


def test_the_split_is_the_same_on_every_message_and_in_every_process(folder: Path) -> None:
    code = (
        "import sys, hashlib; from app.dataset import on_node; from app.task import load_data\n"
        "x_train, _, x_test, _ = load_data(on_node(sys.argv[1], '', None), 1, 4, ('dirichlet', 0.9), 42)\n"
        "print(hashlib.sha256(x_train.tobytes() + x_test.tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    part = load(folder, 1, how=("dirichlet", 0.9))
    assert load(folder, 1, how=("dirichlet", 0.9)) is part
    assert other.stdout.split()[-1] == hashlib.sha256(part[0].tobytes() + part[2].tobytes()).hexdigest()


def test_another_seed_number_of_partitions_or_partitioner_gives_another_partition(folder: Path) -> None:
    first = numbers(load(folder)[0])
    assert numbers(load(folder, seed=43)[0]) != first
    assert len(load(folder, num_partitions=2)[0]) == 40
    skewed = [numbers(load(folder, how=("dirichlet", alpha))[0]) for alpha in (0.9, 100.0)]
    assert skewed[0] != skewed[1] != first


def test_changed_files_give_another_partition(make_folder: MakeFolder) -> None:
    folder, larger = make_folder(train=40, test=0), make_folder(train=80, test=0)
    assert len(load(folder)[0]) == 8
    [file], [other] = folder.rglob("train-*"), larger.rglob("train-*")
    file.write_bytes(other.read_bytes())
    assert len(load(folder)[0]) == 16


def test_a_process_that_finds_its_partition_in_the_cache_does_not_import_the_datasets_packages(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOUQUET_CACHE_DIR", str(tmp_path / "cache"))
    part, _ = load(folder, 2), load_test_data(source(folder))
    assert len(list((tmp_path / "cache").iterdir())) == 2
    code = (
        "import sys; from app.dataset import on_node; from app.task import load_data, load_test_data\n"
        "source = on_node(sys.argv[1], '', None)\n"
        "print(load_data(source, 2, 4, ('iid',), 42)[1].tolist())\n"
        "load_test_data(source)\n"
        "sys.exit(any(m in sys.modules for m in ('datasets', 'flwr_datasets')))"
    )
    other = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert other.returncode == 0, other.stderr
    assert other.stdout.strip() == str(part[1].tolist())


def test_every_value_that_a_partition_depends_on_is_in_the_key_of_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOUQUET_CACHE_DIR", str(tmp_path / "cache"))
    for changes in ({}, {"partition_id": 1}, {"num_partitions": 3}, {"seed": 1}, {"how": ("dirichlet", 0.9)}):
        load(folder, **changes)
    load(folder, how=("dirichlet", 100.0))
    assert len(list((tmp_path / "cache").iterdir())) == 6


@pytest.mark.parametrize(("value", "limit"), [(None, 5 * 1024**3), ("", 5 * 1024**3), ("2", 2 * 1024**3), ("0", None)])
def test_the_disk_cache_is_limited_by_the_fleets_setting(
    value: str | None, limit: int | None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int | None] = []

    def load_or_make(_: object, __: object, make: Callable[[], Arrays], limit_bytes: int | None) -> Arrays:
        limits.append(limit_bytes)
        return make()

    monkeypatch.setattr("app.task.load_or_make", load_or_make)
    monkeypatch.setenv("BOUQUET_CACHE_DIR", str(tmp_path / "cache"))
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
    x_train, _, x_test, _ = load(make_folder(train=8, test=0))
    assert (len(x_train), len(x_test)) == (1, 1)


@pytest.mark.parametrize(
    ("options", "how", "problem"),
    [
        ({"train": 7, "test": 0}, ("iid",), "^dataset=/.*: has 7 train images for 4 nodes"),
        ({"train": 20, "test": 0, "img": "image"}, ("iid",), "^dataset=/.*: has no column img, only image, label"),
        ({"train": 20, "test": 0, "label": "fine_label"}, ("iid",), "no column label"),
        ({"train": 20, "test": 0, "size": (28, 28)}, ("iid",), "is 28x28, but the model takes 32x32"),
        ({"train": 20, "test": 0}, ("dirichlet", 0.01), "^partitioner=dirichlet 0.01: .*; give other parameters"),
        ({"train": 20, "test": 0}, ("pathological", 1), "^partitioner=pathological 1: Label: 0 is needed"),
        ({"train": 30, "test": 0}, ("pathological", 1), "^partitioner=pathological 1: .*one image; give other"),
    ],
)
@pytest.mark.filterwarnings("ignore:The specified min_partition_size", "ignore:Classes")
def test_data_that_cannot_be_divided_is_reported_in_one_line(
    make_folder: MakeFolder, options: dict[str, int], how: Any, problem: str
) -> None:
    folder, num_partitions = make_folder(**options), 10 if how[0] == "pathological" else 4
    with pytest.raises(SettingError, match=problem) as raised:
        for partition_id in range(num_partitions):
            load(folder, partition_id, num_partitions, how=how)
    assert "\n" not in str(raised.value)


def test_an_empty_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no train-\*\.parquet"):
        load(tmp_path)


def test_a_folder_that_cannot_be_read_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "train-0.parquet").write_text("not parquet")
    with pytest.raises(SettingError, match="its train split cannot be read") as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_missing_test_split_is_reported_in_one_line(make_folder: MakeFolder) -> None:
    with pytest.raises(SettingError, match=r"^dataset=/.*: its test split cannot be read .*'test' is not present"):
        load_test_data(source(make_folder(train=10, test=0)))
