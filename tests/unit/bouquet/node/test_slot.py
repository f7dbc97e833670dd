"""A SuperNode's place: waited for, kept, and given up as the fleet's size changes."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bouquet.contract import leases as partition
from bouquet.contract.fleet_size import read_size, write_size
from bouquet.contract.leases import lease_partition
from bouquet.errors import SettingError
from bouquet.node import slot as place
from bouquet.node.slot import acquire_partition, watch_fleet_size


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "LOOK", 0.01)
    monkeypatch.setattr(place, "FOLLOW", 0.01)
    monkeypatch.setattr(partition, "HANDOVER", 0.01)


class FleetSizeListener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._heard = threading.Condition()

    def resize(self, supernodes: int) -> None:
        self._note(f"resize {supernodes}")

    def leave(self, reason: str) -> None:
        self._note(f"leave: {reason}")

    def _note(self, what: str) -> None:
        with self._heard:
            self.told.append(what)
            self._heard.notify_all()

    def wait_for(self, what: str) -> None:
        with self._heard:
            assert self._heard.wait_for(lambda: any(each.startswith(what) for each in self.told), 10), self.told


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_size_is_read_as_it_was_written_and_before_that_it_is_not_known(tmp_path: Path) -> None:
    file = tmp_path / "leases" / "size"
    assert read_size(file) is None
    for supernodes in (10, 7):
        write_size(file, supernodes)
        assert read_size(file) == supernodes
    assert [each.name for each in file.parent.iterdir()] == ["size"]


def test_a_place_is_waited_for_until_the_size_is_known_and_there_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lease_partition(tmp_path, 1)
    sizes = iter([None, None, 1, 1, 1, 2])
    assert acquire_partition(tmp_path, lambda: next(sizes), None, "PARTITION_ID", patience=0) == (1, 2)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2  # each reason once
    assert told[0].startswith("bouquet: waiting for a place: the fleet's size is not known yet")
    assert "SUPERNODES=1: all partition-ids 0..0 are taken; this is one SuperNode too many" in told[1]


def test_a_given_place_beyond_the_fleet_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = iter([2, 2, 6])
    assert acquire_partition(tmp_path, lambda: next(sizes), 5, "TASK_SLOT", patience=0) == (5, 6)
    assert "SUPERNODES=2: the partition-id 5 that TASK_SLOT gives is none of 0..1" in capsys.readouterr().err


def test_a_place_that_two_were_given_is_refused_to_the_second(tmp_path: Path) -> None:
    acquire_partition(tmp_path, lambda: 3, 1, "PARTITION_ID")
    with pytest.raises(SettingError, match="PARTITION_ID=1: taken by the SuperNode on "):
        acquire_partition(tmp_path, lambda: 3, 1, "PARTITION_ID")


def test_a_size_that_still_has_the_place_changes_only_how_many_partitions_there_are(tmp_path: Path) -> None:
    size, follower = tmp_path / "size", FleetSizeListener()
    write_size(size, 4)
    watch_fleet_size(size, tmp_path, 3, False, follower)
    follower.wait_for("resize 4")
    write_size(size, 9)
    follower.wait_for("resize 9")
    assert follower.told == ["resize 4", "resize 9"]


def test_a_size_that_no_longer_has_the_place_ends_the_stay(tmp_path: Path) -> None:
    size, follower = tmp_path / "size", FleetSizeListener()
    write_size(size, 4)
    watch_fleet_size(size, tmp_path, 3, True, follower)
    write_size(size, 3)
    follower.wait_for("leave: the fleet has 3 SuperNodes now, and this one holds partition-id 3")


def test_who_must_have_a_place_gets_it_from_who_has_it_by_chance(tmp_path: Path) -> None:
    size, by_chance, given = tmp_path / "size", FleetSizeListener(), FleetSizeListener()
    write_size(size, 2)
    assert lease_partition(tmp_path, 2) == 0
    (lease,) = _open_leases(tmp_path)
    watch_fleet_size(size, tmp_path, 0, False, by_chance)
    waiting = in_thread(lambda: lease_partition(tmp_path, 2, wanted=0))
    by_chance.wait_for("leave: partition-id 0 is claimed by a SuperNode that must have it")
    assert waiting.is_alive()
    os.close(lease)  # as the end of its process does
    waiting.join(10)
    assert not waiting.is_alive()
    watch_fleet_size(size, tmp_path, 0, True, given)
    given.wait_for("resize 2")
    assert lease_partition(tmp_path, 2) == 1  # and nobody takes it by chance again


def _open_leases(folder: Path) -> set[int]:
    """This process's descriptors of files in the folder."""
    return {
        int(link.name) for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link).startswith(f"{folder}/")
    }
