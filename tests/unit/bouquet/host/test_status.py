"""The status table: the state of each member, from the fleet, the nodes and the SuperLink."""

from pathlib import Path
from typing import Any, cast

import pytest

from bouquet.contract.node_status import NodeStatus
from bouquet.errors import FleetError
from bouquet.flower.control_client import KnownNode
from bouquet.host import status
from bouquet.host.connection import write_connection
from bouquet.host.endpoint import Endpoint
from bouquet.host.fleet.base import Fleet, Member
from bouquet.host.status import COLUMNS, FleetStatus, read_status, status_table

MIB = 1024**2
NOW = 1000.0
SUPERLINK = Member("superlink", "superlink", "healthy")
NODE = Member("node-1", "supernode", "healthy", 0, "abc")
STATUS = NodeStatus(0, "abc", 7, "GPU 0, whole", node_id=111, online=True, heartbeat=988.2, run_id=42)


def known(**nodes: list[int]) -> list[KnownNode]:
    return [KnownNode(node_id, status_, 970.0) for status_, node_ids in nodes.items() for node_id in node_ids]


def fleet_status(**given: Any) -> FleetStatus:
    found: dict[str, Any] = {
        "members": [SUPERLINK, NODE],
        "node_statuses": [STATUS],
        "memory": {"superlink": 300 * MIB, "node-1": 400 * MIB},
        "known_nodes": known(online=[111]),
    }
    return FleetStatus(**found | given)


def rows(status_: FleetStatus) -> list[dict[str, str]]:
    """Return the table's cells by the name of their column."""
    head, *lines = status_table(status_, NOW).splitlines()[:-1]
    starts = [head.index(name) for name in COLUMNS]
    ends = [*starts[1:], None]
    return [
        {name: line[start:end].strip() for name, start, end in zip(COLUMNS, starts, ends, strict=True)}
        for line in lines
    ]


def test_a_node_has_its_partition_id_node_id_state_heartbeat_memory_run_and_device() -> None:
    superlink, node = rows(fleet_status())
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
    assert rows(fleet_status(node_statuses=[idle]))[1]["runs"] == "idle"


def test_a_node_that_the_superlink_counts_as_offline_is_not_called_healthy() -> None:
    assert rows(fleet_status(known_nodes=known(offline=[111])))[1]["state"] == "offline"


def test_the_status_file_of_an_ended_container_is_not_its_successors() -> None:
    node = rows(fleet_status(members=[SUPERLINK, Member("node-2", "supernode", "starting", 0, "def")]))[1]
    assert (node["node-id"], node["device"], node["state"]) == ("-", "-", "starting")


def test_nodes_on_other_machines_are_shown_as_the_superlink_knows_them() -> None:
    seen = rows(fleet_status(known_nodes=known(online=[111, 222], offline=[333], unregistered=[444])))
    assert [(row["name"], row["node-id"], row["heartbeat"]) for row in seen[2:]] == [("(elsewhere)", "222", "30s")]


def test_the_last_line_is_the_superlinks_count_or_why_it_is_missing() -> None:
    assert status_table(fleet_status(), NOW).splitlines()[-1] == "the SuperLink counts 1 SuperNodes as online"
    unreachable = fleet_status(known_nodes=[], superlink_error="no answer within 15 s")
    assert status_table(unreachable, NOW).splitlines()[-1] == "the SuperLink is unreachable: no answer within 15 s"


def test_a_connection_of_flwr_that_is_not_this_fleets_is_named_after_what_the_superlink_says() -> None:
    problem = "config.toml: the connection is without TLS; write it again: make connection"
    lines = status_table(fleet_status(connection_problem=problem), NOW).splitlines()
    assert lines[-2:] == ["the SuperLink counts 1 SuperNodes as online", f"flwr does not reach this fleet: {problem}"]


class FakeFleet:
    """A fleet of one SuperLink, with TLS."""

    certificate: bytes | None = b"CA"

    def members(self) -> list[Member]:
        return [SUPERLINK]

    def memory(self) -> dict[str, int]:
        return {}

    def node_statuses(self) -> list[NodeStatus]:
        return [STATUS]

    def root_certificate(self) -> bytes | None:
        if self.certificate is None:
            raise FleetError("no certificates", "start it")
        return self.certificate


def read(fleet: FakeFleet, flower_home: Path) -> FleetStatus:
    return read_status(cast(Fleet, fleet), 9093, flower_home)


def test_the_superlink_is_asked_by_the_fleets_own_endpoint_whatever_the_users_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(endpoint: Endpoint) -> tuple[list[KnownNode], str]:
        asked.append(endpoint)
        return known(online=[1]), ""

    monkeypatch.setattr(status, "list_known_nodes", answer)
    write_connection("127.0.0.1:1", tmp_path)
    found = read(FakeFleet(), tmp_path)
    assert asked == [Endpoint("127.0.0.1:9093", b"CA")]
    assert [node.node_id for node in found.known_nodes] == [1]
    assert "its address is 127.0.0.1:1, this fleet has 127.0.0.1:9093" in found.connection_problem
    write_connection("127.0.0.1:9093", tmp_path, b"CA")
    assert read(FakeFleet(), tmp_path).connection_problem == ""


def test_without_certificates_the_reason_is_shown_with_the_members(tmp_path: Path) -> None:
    fleet = FakeFleet()
    fleet.certificate = None
    found = read(fleet, tmp_path)
    assert found.superlink_error == "no certificates; start it"
    assert found.node_statuses == [STATUS]


def test_an_unreachable_superlink_is_named_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "SUPERLINK_TIMEOUT", 5.0)
    nodes, error = status.list_known_nodes(Endpoint("127.0.0.1:9", None))
    assert nodes == []
    assert error.startswith("127.0.0.1:9: ")
