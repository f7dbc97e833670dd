from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from app import fleet
from app.errors import FleetError, SettingError

from .fake_grid import FakeGrid


class GrowingGrid(FakeGrid):
    """One more node is online at every look, up to `most`."""

    def __init__(self, most: int) -> None:
        super().__init__(lambda message, context: None, most, {}, {})
        self.looks = 0

    def get_node_ids(self) -> Iterable[int]:
        self.looks += 1
        return list(self.contexts)[: self.looks]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_POLL_SECONDS", 0.001)


def test_the_whole_fleet_is_waited_for() -> None:
    assert len(fleet.wait(GrowingGrid(5), 5, deadline=10)) == 5


def test_a_fleet_that_stays_incomplete_is_an_error_with_both_numbers() -> None:
    with pytest.raises(FleetError) as raised:
        fleet.wait(GrowingGrid(3), 5, deadline=0.05)
    assert str(raised.value).startswith("fleet-deadline=0.05: only 3 of 5 SuperNodes came")
    assert '--run-config "fleet-deadline=0.1"' in str(raised.value)


@pytest.mark.parametrize("value", ["0", "-1", "ten", "1.5"])
def test_an_impossible_size_is_one_clear_line(value: str) -> None:
    with pytest.raises(SettingError, match=f"^BOUQUET_SUPERNODES={value}: must be a whole number of at least 1; "):
        fleet.told_size({"BOUQUET_SUPERNODES": value})


def test_the_size_is_in_the_environment_or_in_a_file_that_wins_or_nowhere(tmp_path: Path) -> None:
    size = tmp_path / "size"
    size.write_text("12\n")
    assert fleet.told_size({"BOUQUET_SUPERNODES": "1"}) == 1
    assert fleet.told_size({"BOUQUET_SUPERNODES": "1", "BOUQUET_SIZE_FILE": str(size)}) == 12
    assert fleet.told_size({}) is None


def test_a_size_file_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="^BOUQUET_SIZE_FILE=.*/size: cannot be read .No such file.*; write the"):
        fleet.told_size({"BOUQUET_SIZE_FILE": str(tmp_path / "size")})
