from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from app import fleet
from app.exceptions import FleetError, SettingError

from .fake_grid import FakeGrid


class GrowingGrid(FakeGrid):
    """One more node is online at every call, up to `most`."""

    def __init__(self, most: int) -> None:
        super().__init__(lambda message, context: None, most, {}, {})
        self.calls = 0

    def get_node_ids(self) -> Iterable[int]:
        self.calls += 1
        return list(self.contexts)[: self.calls]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "POLL_SECONDS", 0.001)


def test_waiting_ends_when_the_whole_fleet_is_online() -> None:
    assert len(fleet.await_fleet(GrowingGrid(5), 5, deadline=10)) == 5


def test_a_fleet_that_stays_incomplete_is_an_error_with_both_numbers() -> None:
    with pytest.raises(FleetError) as raised:
        fleet.await_fleet(GrowingGrid(3), 5, deadline=0.05)
    assert str(raised.value).startswith("fleet-deadline=0.05: only 3 of 5 SuperNodes joined")
    assert '--run-config "fleet-deadline=0.1"' in str(raised.value)


@pytest.mark.parametrize(
    ("environ", "hint"),
    [
        ({"BOUQUET_SIZE_FILE": "/size"}, "with SUPERNODES=3 make up"),
        ({"BOUQUET_SIZE_FILE": "/size", "BOUQUET_SUPERNODES": "5"}, "with SUPERNODES=3 make up"),
        ({"BOUQUET_SUPERNODES": "5"}, "with BOUQUET_SUPERNODES=3"),
        ({}, "with BOUQUET_SUPERNODES=3"),
    ],
)
def test_the_hint_for_an_incomplete_fleet_names_the_setting_that_has_an_effect(
    environ: dict[str, str], hint: str
) -> None:
    with pytest.raises(FleetError) as raised:
        fleet.await_fleet(GrowingGrid(3), 5, deadline=0.05, environ=environ)
    assert str(raised.value).endswith(f"or make the fleet smaller {hint}")


@pytest.mark.parametrize("value", ["0", "-1", "ten", "1.5"])
def test_an_invalid_size_is_reported_in_one_line(value: str) -> None:
    with pytest.raises(SettingError, match=f"^BOUQUET_SUPERNODES={value}: must be a whole number of at least 1; "):
        fleet.configured_size({"BOUQUET_SUPERNODES": value})


def test_the_size_comes_from_the_file_or_else_from_the_environment(tmp_path: Path) -> None:
    size = tmp_path / "size"
    size.write_text("12\n")
    assert fleet.configured_size({"BOUQUET_SUPERNODES": "1"}) == 1
    assert fleet.configured_size({"BOUQUET_SUPERNODES": "1", "BOUQUET_SIZE_FILE": str(size)}) == 12
    assert fleet.configured_size({}) is None


@pytest.mark.parametrize("text", ["0", "ten", ""])
def test_an_invalid_size_file_is_reported_in_one_line_with_its_path_and_text(tmp_path: Path, text: str) -> None:
    size = tmp_path / "size"
    size.write_text(text)
    with pytest.raises(SettingError) as raised:
        fleet.configured_size({"BOUQUET_SIZE_FILE": str(size)})
    assert str(raised.value) == (
        f"BOUQUET_SIZE_FILE={size}: must contain a whole number of at least 1, not {text!r}; "
        "write the number of SuperNodes into it: SUPERNODES=10 make up"
    )


def test_a_missing_size_file_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="^BOUQUET_SIZE_FILE=.*/size: cannot be read .No such file.*; write the"):
        fleet.configured_size({"BOUQUET_SIZE_FILE": str(tmp_path / "size")})
