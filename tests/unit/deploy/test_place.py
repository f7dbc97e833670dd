"""A SuperNode's place: waited for, kept, and given up as the fleet's size changes."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import partition, place
from deploy.errors import SettingError
from deploy.partition import take_partition
from deploy.place import follow, wait_for_place
from deploy.size import read_size, write_size


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "LOOK", 0.01)
    monkeypatch.setattr(place, "FOLLOW", 0.01)
    monkeypatch.setattr(partition, "HANDOVER", 0.01)


class Follower:
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
    take_partition(tmp_path, 1)
    sizes = iter([None, None, 1, 1, 1, 2])
    assert wait_for_place(tmp_path, lambda: next(sizes), None, "PARTITION_ID", patience=0) == (1, 2)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2  # each reason once
    assert told[0].startswith("bouquet: waiting for a place: the fleet's size is not known yet")
    assert "SUPERNODES=1: all partition-ids 0..0 are taken; this is one SuperNode too many" in told[1]


def test_a_given_place_beyond_the_fleet_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = iter([2, 2, 6])
    assert wait_for_place(tmp_path, lambda: next(sizes), 5, "TASK_SLOT", patience=0) == (5, 6)
    assert "SUPERNODES=2: the partition-id 5 that TASK_SLOT gives is none of 0..1" in capsys.readouterr().err


def test_a_place_that_two_were_given_is_refused_to_the_second(tmp_path: Path) -> None:
    wait_for_place(tmp_path, lambda: 3, 1, "PARTITION_ID")
    with pytest.raises(SettingError, match="PARTITION_ID=1: taken by the SuperNode on "):
        wait_for_place(tmp_path, lambda: 3, 1, "PARTITION_ID")


def test_a_size_that_still_has_the_place_changes_only_how_many_partitions_there_are(tmp_path: Path) -> None:
    size, follower = tmp_path / "size", Follower()
    write_size(size, 4)
    follow(size, tmp_path, 3, False, follower)
    follower.wait_for("resize 4")
    write_size(size, 9)
    follower.wait_for("resize 9")
    assert follower.told == ["resize 4", "resize 9"]


def test_a_size_that_no_longer_has_the_place_ends_the_stay(tmp_path: Path) -> None:
    size, follower = tmp_path / "size", Follower()
    write_size(size, 4)
    follow(size, tmp_path, 3, True, follower)
    write_size(size, 3)
    follower.wait_for("leave: the fleet has 3 SuperNodes now, and this one holds partition-id 3")


def test_who_must_have_a_place_gets_it_from_who_has_it_by_chance(tmp_path: Path) -> None:
    size, by_chance, given = tmp_path / "size", Follower(), Follower()
    write_size(size, 2)
    assert take_partition(tmp_path, 2) == 0
    (lease,) = _open_leases(tmp_path)
    follow(size, tmp_path, 0, False, by_chance)
    waiting = in_thread(lambda: take_partition(tmp_path, 2, wanted=0))
    by_chance.wait_for("leave: partition-id 0 is claimed by a SuperNode that must have it")
    assert waiting.is_alive()
    os.close(lease)  # as the end of its process does
    waiting.join(10)
    assert not waiting.is_alive()
    follow(size, tmp_path, 0, True, given)
    given.wait_for("resize 2")
    assert take_partition(tmp_path, 2) == 1  # and nobody takes it by chance again


def _open_leases(folder: Path) -> set[int]:
    """This process's descriptors of files in the folder."""
    return {
        int(link.name) for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link).startswith(f"{folder}/")
    }
