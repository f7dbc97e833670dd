from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
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


def test_a_second_load_returns_what_the_first_made(tmp_path: Path, make: Maker) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    again = array_cache.load_or_make(tmp_path, KEY, make)
    assert make.calls == 1
    assert again.keys() == {"images", "labels"}
    assert again["images"].tolist() == list(range(100))


def test_every_part_of_the_key_selects_the_entry(tmp_path: Path, make: Maker) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    for position in range(len(KEY)):
        other = (*KEY[:position], "other", *KEY[position + 1 :])
        assert array_cache.load_or_make(tmp_path, other, make)["labels"][0] == make.calls
    assert make.calls == 1 + len(KEY)


@pytest.mark.parametrize("size", [0, 10, -1, -300])
def test_a_truncated_file_is_never_read_and_the_entry_is_recreated(tmp_path: Path, make: Maker, size: int) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    [truncated] = tmp_path.iterdir()
    truncated.write_bytes(truncated.read_bytes()[:size])
    assert array_cache.load_or_make(tmp_path, KEY, make)["labels"][0] == 2
    assert array_cache.load_or_make(tmp_path, KEY, make)["labels"][0] == 2


def test_no_changed_byte_anywhere_in_a_file_changes_the_arrays(tmp_path: Path) -> None:
    def make() -> Arrays:
        return {"x": np.arange(100, dtype=np.uint8)}

    array_cache.load_or_make(tmp_path, KEY, make)
    [file] = tmp_path.iterdir()
    content = file.read_bytes()
    for position in range(len(content)):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        loaded = array_cache.load_or_make(tmp_path, KEY, make)
        assert loaded.keys() == {"x"}, position
        assert loaded["x"].tolist() == list(range(100)), position


def test_an_entry_with_a_changed_byte_is_recreated(tmp_path: Path, make: Maker) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    [file] = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[content.index(bytes(range(100))) + 50] ^= 1
    file.write_bytes(content)
    assert array_cache.load_or_make(tmp_path, KEY, make)["labels"][0] == 2


def test_a_foreign_entry_is_never_read(tmp_path: Path, make: Maker) -> None:
    array_cache.load_or_make(tmp_path, KEY, make)
    [entry] = tmp_path.iterdir()
    array_cache.load_or_make(tmp_path / "other", ("another key",), make)
    [other] = (tmp_path / "other").iterdir()
    entry.write_bytes(other.read_bytes())
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


def big(folder: Path, number: int, limit_bytes: int | None) -> Arrays:
    """Load or make an entry of 1,000 bytes and some 700 more for its key and headers."""
    return array_cache.load_or_make(folder, (number,), lambda: {"a": np.full(1000, number, np.uint8)}, limit_bytes)


def cached(folder: Path) -> set[int]:
    return {int(np.load(file)["a"][0]) for file in folder.glob("*.npz")}


def age(folder: Path, number: int, seconds: float) -> None:
    """Make an entry look as if it was last used some time ago."""
    [entry] = [file for file in folder.glob("*.npz") if np.load(file)["a"][0] == number]
    then = time.time() - seconds
    os.utime(entry, (then, then))


def test_the_entries_that_were_not_used_for_longest_are_removed_above_the_limit(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        big(tmp_path, number, None)
    for number, seconds in ((1, 30), (2, 20), (3, 10)):
        age(tmp_path, number, seconds)
    big(tmp_path, 1, 10_000)  # a hit counts as a use
    big(tmp_path, 4, 5_900)
    assert cached(tmp_path) == {1, 3, 4}
    assert len(list(tmp_path.iterdir())) == 3


def test_the_entry_that_was_just_stored_stays_even_if_it_is_larger_than_the_limit(tmp_path: Path) -> None:
    big(tmp_path, 1, 1)
    assert cached(tmp_path) == {1}
    big(tmp_path, 2, 1)
    assert cached(tmp_path) == {2}


def test_without_a_limit_nothing_is_removed(tmp_path: Path) -> None:
    for number in range(5):
        big(tmp_path, number, None)
    assert cached(tmp_path) == set(range(5))


def test_what_the_cache_did_not_make_stays(tmp_path: Path) -> None:
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "data").write_bytes(bytes(10_000))
    big(tmp_path, 1, 1)
    assert (tmp_path / "huggingface" / "data").exists()


@pytest.mark.parametrize("name", [".making-abc", ".removing-abc", "0123456789abcdef" * 2])
def test_what_a_killed_process_or_an_earlier_release_left_is_removed_once_it_is_old(tmp_path: Path, name: str) -> None:
    left = tmp_path / name
    (left / "entry").mkdir(parents=True)
    (left / "entry" / "a.npy").touch()
    big(tmp_path, 1, None)
    assert left.exists()  # another process may be making it
    then = time.time() - array_cache.UNFINISHED_SECONDS - 1
    os.utime(left, (then, then))
    big(tmp_path, 2, None)
    assert not left.exists()


def test_processes_that_shrink_the_cache_at_the_same_time_read_what_they_stored(tmp_path: Path) -> None:
    def work(offset: int) -> None:
        for number in range(offset, offset + 20):
            assert big(tmp_path, number, 5_000)["a"][0] == number
            assert big(tmp_path, number, 5_000)["a"][0] == number

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, offset) for offset in (0, 50, 100, 150)]:
            done.result()
    assert len(cached(tmp_path)) <= 6
    assert not list(tmp_path.glob(".*"))
