"""The operator's view: what the fleet, the nodes and the SuperLink say, a line for each member."""

from pathlib import Path
from typing import Any

import pytest

from bouquet.contract.node_status import NodeStatus
from bouquet.flower.list_nodes import KnownNode
from bouquet.host import status
from bouquet.host.connection import write_connection
from bouquet.host.fleet.base import Member
from bouquet.host.status import COLUMNS, View, table

MIB = 1024**2
NOW = 1000.0
SUPERLINK = Member("superlink", "superlink", "healthy")
NODE = Member("node-1", "supernode", "healthy", 0, "abc")
REPORT = NodeStatus(0, "abc", 7, "GPU 0, whole", node_id=111, online=True, heartbeat=988.2, run_id=42)


def known(**nodes: list[int]) -> list[KnownNode]:
    return [KnownNode(node_id, status_, 970.0) for status_, node_ids in nodes.items() for node_id in node_ids]


def view(**given: Any) -> View:
    found: dict[str, Any] = {
        "members": [SUPERLINK, NODE],
        "reports": [REPORT],
        "memory": {"superlink": 300 * MIB, "node-1": 400 * MIB},
        "superlink": known(online=[111]),
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
    idle = NodeStatus(0, "abc", 7, "CPU", node_id=111)
    assert rows(view(reports=[idle]))[1]["runs"] == "idle"


def test_a_node_that_the_superlink_counts_as_offline_is_not_called_healthy() -> None:
    assert rows(view(superlink=known(offline=[111])))[1]["state"] == "offline"


def test_what_a_gone_container_wrote_is_not_its_successors() -> None:
    node = rows(view(members=[SUPERLINK, Member("node-2", "supernode", "starting", 0, "def")]))[1]
    assert (node["node-id"], node["device"], node["state"]) == ("-", "-", "starting")


def test_nodes_on_other_machines_are_shown_as_the_superlink_knows_them() -> None:
    seen = rows(view(superlink=known(online=[111, 222], offline=[333], unregistered=[444])))
    assert [(row["name"], row["node-id"], row["heartbeat"]) for row in seen[2:]] == [("(elsewhere)", "222", "30s")]


def test_the_last_line_is_the_superlinks_count_or_why_it_is_missing() -> None:
    assert table(view(), NOW).splitlines()[-1] == "the SuperLink counts 1 SuperNodes as online"
    trouble = view(superlink=[], trouble="no answer within 15 s")
    assert table(trouble, NOW).splitlines()[-1] == "the SuperLink is not heard: no answer within 15 s"


def test_without_a_connection_the_reason_is_said_and_the_rest_shown(tmp_path: Path) -> None:
    nodes, trouble = status.ask_superlink(tmp_path)
    assert nodes == []
    assert trouble == f"{tmp_path}/config.toml: no connection `local-deployment`; write it: make connection"


def test_a_superlink_that_is_not_there_is_said_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "SUPERLINK_SECONDS", 5.0)
    write_connection("127.0.0.1:9", tmp_path)
    nodes, trouble = status.ask_superlink(tmp_path)
    assert nodes == []
    assert trouble.startswith("127.0.0.1:9: ")
