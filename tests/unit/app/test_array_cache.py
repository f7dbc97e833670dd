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


def test_a_second_load_memory_maps_what_the_first_made(tmp_path: Path, make: Maker) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    again = array_cache.load_or_make(tmp_path, KEY, make)
    assert make.calls == 1
    assert isinstance(again["images"], np.memmap)
    assert again["images"].tolist() == list(range(100))


def test_every_part_of_the_key_selects_the_entry(tmp_path: Path, make: Maker) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    for position in range(len(KEY)):
        other = (*KEY[:position], "other", *KEY[position + 1 :])
        assert array_cache.load_or_make(tmp_path, other, make)["labels"][0] == make.calls
    assert make.calls == 1 + len(KEY)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "manifest.json"])
def test_a_truncated_file_is_never_read_and_the_entry_is_recreated(tmp_path: Path, make: Maker, file: str) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    [truncated] = tmp_path.glob(f"*/{file}")
    truncated.write_bytes(truncated.read_bytes()[:-1])
    assert array_cache.load_or_make(tmp_path, KEY, make)["labels"][0] == 2
    assert array_cache.load_or_make(tmp_path, KEY, make)["labels"][0] == 2


def test_an_entry_with_a_changed_byte_is_recreated(tmp_path: Path, make: Maker) -> None:
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


def test_nothing_is_stored_when_making_the_arrays_fails(tmp_path: Path) -> None:
    def fail() -> Arrays:
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        array_cache.load_or_make(tmp_path, KEY, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_does_not_fail_the_load(tmp_path: Path, make: Maker) -> None:
    (tmp_path / "file").write_text("in the way")
    assert array_cache.load_or_make(tmp_path / "file", KEY, make)["images"].size == 100
