"""The operator's view: what the fleet, the nodes and the SuperLink say, a line for each member."""

from typing import Any

import pytest

from deploy import status
from deploy.fleet import Member
from deploy.node_file import NodeReport
from deploy.status import COLUMNS, View, table
from tests.unit.deploy.conftest import Install

MIB = 1024**2
NOW = 1000.0
SUPERLINK = Member("superlink", "superlink", "healthy")
NODE = Member("node-1", "supernode", "healthy", 0, "abc")
REPORT = NodeReport(0, "abc", 7, "GPU 0, whole", node_id=111, online=True, heartbeat=988.2, run_id=42)


def view(**given: Any) -> View:
    found: dict[str, Any] = {
        "members": [SUPERLINK, NODE],
        "reports": [REPORT],
        "memory": {"superlink": 300 * MIB, "node-1": 400 * MIB},
        "superlink": {111: "online"},
    }
    return View(**found | given)


def rows(seen: View) -> list[dict[str, str]]:
    """Return the table's cells by the name of their column."""
    head, *lines = table(seen, NOW).splitlines()[:-1]
    starts = [head.index(name) for name in COLUMNS]
    ends = [*starts[1:], None]
    return [
        {name: line[start:end].strip() for name, start, end in zip(COLUMNS, starts, ends, strict=True)}
        for line in lines
    ]


def test_a_node_has_its_partition_id_node_id_state_heartbeat_memory_run_and_device() -> None:
    superlink, node = rows(view())
    assert node == {
        "name": "node-1",
        "role": "supernode",
        "partition-id": "0",
        "node-id": "111",
        "state": "healthy",
        "heartbeat": "12s",
        "memory": "400MiB",
        "runs": "42",
        "device": "GPU 0, whole",
    }
    assert (superlink["state"], superlink["memory"], superlink["node-id"]) == ("healthy", "300MiB", "-")


def test_a_node_without_work_is_idle() -> None:
    idle = NodeReport(0, "abc", 7, "CPU", node_id=111)
    assert rows(view(reports=[idle]))[1]["runs"] == "idle"


def test_a_node_that_the_superlink_counts_as_offline_is_not_called_healthy() -> None:
    assert rows(view(superlink={111: "offline"}))[1]["state"] == "offline"


def test_what_a_gone_container_wrote_is_not_its_successors() -> None:
    node = rows(view(members=[SUPERLINK, Member("node-2", "supernode", "starting", 0, "def")]))[1]
    assert (node["node-id"], node["device"], node["state"]) == ("-", "-", "starting")


def test_nodes_on_other_machines_are_shown_as_the_superlink_knows_them() -> None:
    seen = rows(view(superlink={111: "online", 222: "online", 333: "offline", 444: "unregistered"}))
    assert [(row["name"], row["node-id"]) for row in seen[2:]] == [("(elsewhere)", "222")]


def test_the_last_line_is_the_superlinks_count_or_why_it_is_missing() -> None:
    assert table(view(), NOW).splitlines()[-1] == "the SuperLink counts 1 SuperNodes as online"
    trouble = view(superlink={}, trouble="no answer within 15 s")
    assert table(trouble, NOW).splitlines()[-1] == "the SuperLink is not heard: no answer within 15 s"


def test_the_superlink_is_asked_by_flwr(install: Install, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install(flwr="""echo '{"success": true, "nodes": [{"node-id": "18446744073709551613", "status": "online"}]}'""")
    monkeypatch.setattr(status, "FLWR", tmp_path / "flwr")
    assert status.ask_superlink() == ({18446744073709551613: "online"}, "")
    assert "supernode list local-deployment --format json" in (tmp_path / "calls").read_text()


def test_a_superlink_that_cannot_be_asked_is_no_reason_to_show_nothing(
    install: Install, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(flwr="echo 'Error: connection refused' >&2; exit 1")
    monkeypatch.setattr(status, "FLWR", tmp_path / "flwr")
    assert status.ask_superlink() == ({}, "Error: connection refused")
