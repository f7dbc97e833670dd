"""When a worker has grown too much. Its memory is a number that the test sets."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from bouquet.executor import memory_growth as module
from bouquet.executor.memory_growth import Growth, MemoryGrowth, anonymous_mib, default_growth_mib


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The memory after each message in MiB: the first one is next."""
    sizes: list[int] = []
    monkeypatch.setattr(module, "anonymous_mib", lambda: sizes.pop(0))
    yield sizes
    assert not sizes


def test_growth_beyond_the_limit_is_reported_with_both_sizes(memory: list[int]) -> None:
    growth = MemoryGrowth(100)
    memory += [300, 400, 401]
    assert [growth.after_message("train") for _ in range(3)] == [None, None, Growth(300, 401)]


def test_caches_of_the_first_message_of_each_kind_are_no_growth(memory: list[int]) -> None:
    growth = MemoryGrowth(100)
    memory += [300, 700, 790, 801]
    assert growth.after_message("train") is None
    assert growth.after_message("evaluate") is None, "it has loaded the test data"
    assert growth.after_message("train") is None
    assert growth.after_message("evaluate") == Growth(700, 801)


def test_zero_is_no_limit(memory: list[int]) -> None:
    growth = MemoryGrowth(0)
    memory += [300, 100_000]
    assert [growth.after_message("train") for _ in range(2)] == [None, None]


@pytest.mark.parametrize(("limit", "mib"), [(None, 512), (2 << 30, 512), (8 << 30, 2048), (1 << 20, 1)])
def test_the_default_is_a_quarter_of_the_containers_limit(
    limit: int | None, mib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "memory_limit", lambda: limit)
    assert default_growth_mib() == MemoryGrowth(None).limit_mib == mib


def test_memory_of_files_does_not_count(tmp_path: Path) -> None:
    before = anonymous_mib()
    hoard = bytearray(b"x") * (64 << 20)
    assert before + 60 < anonymous_mib() < before + 80
    path = tmp_path / "file"
    path.write_bytes(hoard)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[offset] for offset in range(0, len(mapped), 4096)) > 0
        assert anonymous_mib() < before + 80
