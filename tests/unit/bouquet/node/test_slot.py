"""A SuperNode's slot: how it waits for one, keeps it, and gives it up as the fleet's size changes."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bouquet.contract import leases
from bouquet.contract.fleet_size import read_size, write_size
from bouquet.contract.leases import lease_partition
from bouquet.errors import SettingError
from bouquet.node import slot
from bouquet.node.slot import acquire_partition, watch_fleet_size
from bouquet.polling import poll_until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "ACQUIRE_POLL_SECONDS", 0.01)
    monkeypatch.setattr(slot, "SIZE_POLL_SECONDS", 0.01)
    monkeypatch.setattr(leases, "CLAIM_POLL_SECONDS", 0.01)


class RecordingListener:
    """Records each call."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._changed = threading.Condition()

    def resize(self, supernodes: int) -> None:
        self._record(f"resize {supernodes}")

    def leave(self, reason: str) -> None:
        self._record(f"leave: {reason}")

    def _record(self, what: str) -> None:
        with self._changed:
            self.calls.append(what)
            self._changed.notify_all()

    def wait_for(self, what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: any(each.startswith(what) for each in self.calls), 10), self.calls


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_size_is_read_as_it_was_written_and_is_none_before_that(tmp_path: Path) -> None:
    file = tmp_path / "leases" / "size"
    assert read_size(file) is None
    for supernodes in (10, 7):
        write_size(file, supernodes)
        assert read_size(file) == supernodes
    assert [each.name for each in file.parent.iterdir()] == ["size"]


def test_a_supernode_waits_until_the_size_is_known_and_a_partition_is_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lease_partition(tmp_path, 1)
    sizes = iter([None, None, 1, 1, 1, 2])
    assert acquire_partition(tmp_path, lambda: next(sizes), None, "PARTITION_ID", notice_seconds=0) == (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # each reason once
    assert lines[0].startswith("bouquet: waiting for a free partition: the fleet size is not set yet")
    assert "SUPERNODES=1: all partition-ids 0..0 are taken; this is one SuperNode too many" in lines[1]


def test_a_supernode_pinned_beyond_the_fleet_waits_until_the_fleet_grows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = iter([2, 2, 6])
    assert acquire_partition(tmp_path, lambda: next(sizes), 5, "TASK_SLOT", notice_seconds=0) == (5, 6)
    assert "SUPERNODES=2: partition-id 5 (from TASK_SLOT) is not in 0..1" in capsys.readouterr().err


def test_a_second_supernode_pinned_to_the_same_partition_is_refused(tmp_path: Path) -> None:
    acquire_partition(tmp_path, lambda: 3, 1, "PARTITION_ID")
    with pytest.raises(SettingError, match="PARTITION_ID=1: taken by the SuperNode on "):
        acquire_partition(tmp_path, lambda: 3, 1, "PARTITION_ID")


def test_a_size_that_still_includes_the_slot_changes_only_the_number_of_partitions(tmp_path: Path) -> None:
    size, listener = tmp_path / "size", RecordingListener()
    write_size(size, 4)
    watch_fleet_size(size, tmp_path, 3, False, listener)
    listener.wait_for("resize 4")
    write_size(size, 9)
    listener.wait_for("resize 9")
    assert listener.calls == ["resize 4", "resize 9"]


def test_a_size_that_excludes_the_slot_makes_the_supernode_leave(tmp_path: Path) -> None:
    size, listener = tmp_path / "size", RecordingListener()
    write_size(size, 4)
    watch_fleet_size(size, tmp_path, 3, True, listener)
    write_size(size, 3)
    listener.wait_for("leave: the fleet now has 3 SuperNodes, so this one cannot keep partition-id 3")


def test_a_pinned_supernode_gets_its_partition_from_one_that_is_not_pinned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size, unpinned, pinned = tmp_path / "size", RecordingListener(), RecordingListener()
    write_size(size, 2)
    assert lease_partition(tmp_path, 2) == 0
    (lease,) = _open_leases(tmp_path)
    watch_fleet_size(size, tmp_path, 0, False, unpinned)
    waiting = in_thread(lambda: lease_partition(tmp_path, 2, wanted=0))
    unpinned.wait_for("leave: a SuperNode that is pinned to partition-id 0 claims it")
    printed = poll_until(lambda: capsys.readouterr().err, 10, 0.05)
    assert (printed or "").startswith("bouquet: waiting for partition-id 0: the SuperNode on ")
    assert waiting.is_alive()
    os.close(lease)  # as the kernel does when its process ends
    waiting.join(10)
    assert not waiting.is_alive()
    watch_fleet_size(size, tmp_path, 0, True, pinned)
    pinned.wait_for("resize 2")
    assert lease_partition(tmp_path, 2) == 1  # an unpinned SuperNode skips the claimed partition


def _open_leases(folder: Path) -> set[int]:
    """This process's descriptors of files in the folder."""
    return {
        int(link.name) for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link).startswith(f"{folder}/")
    }
