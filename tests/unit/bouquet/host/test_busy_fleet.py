"""Another app's packages on a fleet that has a run in progress: refused, with what can be done."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bouquet.errors import FleetError
from bouquet.flower.control_client import ControlApiError, KnownRun
from bouquet.host.busy_fleet import refuse_other_packages
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.host.packages.package_list import PackageList
from bouquet.settings.host import HostSettings

NEEDED = PackageList(Path("/requirements.txt"), "b" * 12, frozenset(), Path("/my/app"))
SETTINGS = HostSettings.read({"BOUQUET_HOME": "/my home/bouquet", "FLWR_HOME": "/nowhere"})


class FakeFleet:
    """A fleet of containers without TLS."""

    def __init__(self, packages: str | None) -> None:
        self._packages = packages

    def packages(self) -> str | None:
        return self._packages

    def root_certificate(self) -> None:
        return None


class FakeProcessFleet(FakeFleet, ProcessFleet):
    """The same, of local processes."""


class FakeControl:
    """A Control API with these runs; None: it does not answer."""

    runs: list[KnownRun] | None = None

    def __init__(self, address: str, root_certificate: bytes | None) -> None:
        assert (address, root_certificate) == ("127.0.0.1:9093", None)

    def __enter__(self) -> "FakeControl":
        return self

    def __exit__(self, *_: object) -> None: ...

    def list_runs(self, seconds: float) -> list[KnownRun]:
        if self.runs is None:
            raise ControlApiError("here", "UNAVAILABLE", "nobody answers")
        return self.runs


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> type[FakeControl]:
    monkeypatch.setattr("bouquet.flower.control_client.ControlClient", FakeControl)
    monkeypatch.setattr(FakeControl, "runs", [KnownRun(5, "finished:failed", "", 1.0)])
    return FakeControl


def refuse(fleet: Any, settings: HostSettings = SETTINGS) -> None:
    refuse_other_packages(fleet, NEEDED, settings)


def run(run_id: int, status: str, submitted: float) -> KnownRun:
    return KnownRun(run_id, status, "", submitted)


@pytest.mark.parametrize("status", ["pending", "starting", "running"])
def test_a_run_in_progress_is_named_with_the_ways_out(status: str, control: type[FakeControl]) -> None:
    control.runs = [run(5, "finished:completed", 1.0), run(7, status, 3.0)]
    with pytest.raises(FleetError) as refused:
        refuse(FakeFleet("a" * 12))
    text = str(refused.value)
    assert text.startswith(
        "APP=/my/app: its packages are not those of the fleet, and run 7 is in progress on it; wait "
    )
    assert "flwr stop 7 local-deployment" in text
    assert "COMPOSE_PROJECT_NAME=bouquet-2 CONTROL_PORT=9193 FLEET_PORT=9192" in text
    assert "\n" not in text


def test_the_oldest_of_several_runs_is_named(control: type[FakeControl]) -> None:
    control.runs = [run(8, "running", 9.0), run(7, "running", 3.0), run(9, "pending", 10.0)]
    with pytest.raises(FleetError, match=r"run 7 \(and 2 more\) is in progress"):
        refuse(FakeFleet("a" * 12))


def test_a_second_fleet_of_processes_has_a_folder_of_its_own(control: type[FakeControl]) -> None:
    control.runs = [run(7, "running", 3.0)]
    with pytest.raises(FleetError, match="BOUQUET_HOME='/my home/bouquet-2' CONTROL_PORT=9193 FLEET_PORT=65435"):
        refuse(FakeProcessFleet("a" * 12), replace(SETTINGS, fleet_port=65535))


@pytest.mark.parametrize("packages", [None, "b" * 12])
def test_a_fleet_that_is_down_or_has_the_same_packages_goes_on(
    packages: str | None, control: type[FakeControl]
) -> None:
    control.runs = [run(7, "running", 3.0)]
    refuse(FakeFleet(packages))


def test_a_fleet_without_a_run_in_progress_gets_other_packages(control: type[FakeControl]) -> None:
    refuse(FakeFleet("a" * 12))


def test_a_superlink_that_does_not_answer_does_not_stop_a_start_that_repairs_it(control: type[FakeControl]) -> None:
    control.runs = None
    refuse(FakeFleet("a" * 12))
