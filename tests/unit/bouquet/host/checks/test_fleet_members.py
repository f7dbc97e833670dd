"""The health of the running fleet."""

from pathlib import Path

import pytest

from bouquet.errors import FleetError
from bouquet.host.checks.fleet_members import nodes
from bouquet.host.fleet.base import Member
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.settings.host import HostSettings


def test_a_fleet_that_is_up_but_not_healthy_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fleet = ProcessFleet(HostSettings.read({"BOUQUET_HOME": str(tmp_path)}))
    monkeypatch.setattr(fleet, "members", lambda: [Member("node-1", "supernode", "restarting")])
    with pytest.raises(FleetError, match=r"not healthy: node-1 \(restarting\); full logs: make logs"):
        nodes(fleet, 1)
