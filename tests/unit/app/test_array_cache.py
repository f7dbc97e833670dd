from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app import array_cache
from app.array_cache import Arrays, Key

KEY: Key = ("fingerprint", "iid", 10, 3, 42)


class Maker:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Arrays:
        self.calls += 1
        return {"images": np.arange(100, dtype=np.uint8), "labels": np.full(5, self.calls, np.uint8)}


@pytest.fixture
def make() -> Maker:
    return Maker()


def test_a_second_load_reads_what_the_first_made_by_memory_map(tmp_path: Path, make: Maker) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    again = array_cache.load_or_make(tmp_path, KEY, make)
    assert make.calls == 1
    assert isinstance(again["images"], np.memmap)
    assert again["images"].tolist() == list(range(100))


def test_every_part_of_the_key_counts(tmp_path: Path, make: Maker) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    for position in range(len(KEY)):
        other = (*KEY[:position], "other", *KEY[position + 1 :])
        assert array_cache.load_or_make(tmp_path, other, make)["labels"][0] == make.calls
    assert make.calls == 1 + len(KEY)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "manifest.json"])
def test_a_torn_file_is_never_read_and_is_made_anew(tmp_path: Path, make: Maker, file: str) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    [torn] = tmp_path.glob(f"*/{file}")
    torn.write_bytes(torn.read_bytes()[:-1])
    assert array_cache.load_or_make(tmp_path, KEY, make)["labels"][0] == 2
    assert array_cache.load_or_make(tmp_path, KEY, make)["labels"][0] == 2


def test_a_changed_byte_is_noticed(tmp_path: Path, make: Maker) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    [file] = tmp_path.glob("*/images.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert array_cache.load_or_make(tmp_path, KEY, make)["labels"][0] == 2


def test_a_foreign_entry_is_never_read(tmp_path: Path, make: Maker) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    [entry] = tmp_path.iterdir()
    array_cache.load_or_make(tmp_path / "other", ("another key",), make)
    [other] = (tmp_path / "other").iterdir()
    for file in other.iterdir():
        (entry / file.name).write_bytes(file.read_bytes())
    assert array_cache.load_or_make(tmp_path, KEY, make)["labels"][0] == 3


def test_nothing_unfinished_is_left_when_making_fails(tmp_path: Path) -> None:
    def fail() -> Arrays:
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        array_cache.load_or_make(tmp_path, KEY, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_speed_only(tmp_path: Path, make: Maker) -> None:
    (tmp_path / "file").write_text("in the way")
    assert array_cache.load_or_make(tmp_path / "file", KEY, make)["images"].size == 100
