"""The list of all nodes, and what may be changed about one."""

from typing import Any

import pytest

from bouquet.contract.keys import fingerprint, make_key, public_key
from bouquet.contract.node_status import NodeStatus
from bouquet.errors import FleetError, SettingError
from bouquet.flower import control_client
from bouquet.flower.control_client import ControlApiError, FleetDescription, KnownNode, NodeDescription
from bouquet.host.endpoint import Endpoint
from bouquet.host.fleet.base import Member
from bouquet.host.nodes import ListedNode, NodeChange, change_node, find, list_nodes, merge, nodes_table

KEYS = [public_key(make_key()) for _ in range(4)]
KNOWN = [
    KnownNode(11, "online", 970.0, KEYS[0]),
    KnownNode(12, "offline", 100.0, KEYS[1]),
    KnownNode(131313131313, "unregistered", None, KEYS[2]),
    KnownNode(14, "online", 990.0, KEYS[3]),
]
DESCRIPTION = FleetDescription(
    3,
    {
        11: NodeDescription("", 0, "local", True),
        12: NodeDescription("north", None, "joined", False),
        14: NodeDescription("", 2, "slot", True),
    },
)
MEMBER = Member("bouquet-supernode-1", "supernode", "healthy", 0, "host")


def status(node_id: int) -> NodeStatus:
    return NodeStatus(0, host="host", pid=1, node_id=node_id, heartbeat=None, run_id=None, device="CPU")


def listed(description: FleetDescription = DESCRIPTION) -> list[ListedNode]:
    return merge(KNOWN, description, [status(11)], [MEMBER])


def test_the_list_has_all_nodes_that_may_take_part_by_partition_with_what_each_source_says() -> None:
    lines = [line.split() for line in nodes_table(listed(), now=1000.0).splitlines()]
    assert lines == [
        ["name", "node-id", "partition-id", "status", "site", "heartbeat", "key"],
        ["bouquet-supernode-1", "11", "0", "online", "this", "machine", "30s", fingerprint(KEYS[0])],
        ["-", "14", "2", "online", "cluster", "10s", fingerprint(KEYS[3])],
        ["north", "12", "-", "offline", "elsewhere", "900s", fingerprint(KEYS[1])],
    ]


def test_a_stock_superlink_knows_less_of_its_nodes() -> None:
    nodes = listed(FleetDescription(None, {}))
    assert {(node.partition_id, node.kind) for node in nodes} == {(None, "")}
    assert {node.node_id for node in nodes} == {11, 12, 14}


@pytest.mark.parametrize(
    "wanted",
    ["north", "12", fingerprint(KEYS[1]), fingerprint(KEYS[1])[7:15]],
    ids=["name", "id", "fingerprint", "start"],
)
def test_a_node_is_found_by_name_id_or_the_start_of_its_fingerprint(wanted: str) -> None:
    assert find(listed(), wanted).node_id == 12


@pytest.mark.parametrize("wanted", ["south", "131313131313", "", "SHA256:"])
def test_a_node_that_there_is_not_is_refused(wanted: str) -> None:
    with pytest.raises(SettingError, match=f"NODE={wanted}: there is no such node; list them: bouquet nodes"):
        find(listed(), wanted)


def test_a_start_that_several_fingerprints_have_is_refused() -> None:
    nodes = [ListedNode(i, "", i, "online", "joined", f"SHA256:ab{i}", None) for i in range(2)]
    with pytest.raises(SettingError, match="it is the start of 2 fingerprints"):
        find(nodes, "ab")


class Api:
    """The Control API of a SuperLink with these nodes."""

    done: list[tuple[Any, ...]]

    def __init__(self, address: str, root_certificate: bytes | None) -> None:
        pass

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def list_nodes(self, seconds: float) -> list[KnownNode]:
        return KNOWN

    def describe(self, seconds: float) -> FleetDescription:
        return DESCRIPTION

    def unregister(self, node_id: int, seconds: float) -> None:
        self.done.append(("unregister", node_id))

    def name_node(self, node_id: int, name: str, seconds: float) -> None:
        if name == "taken":
            raise ControlApiError("here", "ALREADY_EXISTS", "taken is the name of node 14")
        self.done.append(("name", node_id, name))


class Fleet:
    """The fleet of this machine."""

    def node_statuses(self) -> list[NodeStatus]:
        return [status(11)]

    def members(self) -> list[Member]:
        return [MEMBER]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of the SuperLink."""
    monkeypatch.setattr(control_client, "ControlClient", Api)
    Api.done = []
    return Api.done


def change(*words: Any) -> list[str]:
    return list(change_node(Endpoint("here", None), Fleet(), NodeChange(*words)))  # type: ignore[arg-type]


def test_all_sources_are_asked(done: list[Any]) -> None:
    assert list_nodes(Endpoint("here", None), Fleet()) == listed()  # type: ignore[arg-type]


def test_a_node_that_has_left_is_removed(done: list[Any]) -> None:
    (line,) = change("remove", "north")
    assert done == [("unregister", 12)]
    assert line == f"north (node-id 12) is removed; its key {fingerprint(KEYS[1])} is never accepted again"


def test_a_node_that_is_online_is_not_removed_but_revoked(done: list[Any]) -> None:
    with pytest.raises(FleetError, match="is online; stop it .*: bouquet nodes revoke bouquet-supernode-1"):
        change("remove", "11")
    assert done == []
    assert "another key with the next: make up" in change("revoke", "11")[1]
    assert done == [("unregister", 11)]


def test_a_slot_of_a_cluster_is_not_removed_since_its_key_comes_back(
    done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Api, "list_nodes", lambda api, seconds: [KnownNode(14, "offline", 1.0, KEYS[3])])
    with pytest.raises(FleetError, match="is a slot of a cluster"):
        change("remove", "14")
    assert done == []
    assert "until the cluster gets another seed" in change("revoke", "14")[1]


def test_a_node_gets_a_name_that_is_free(done: list[Any]) -> None:
    assert change("name", "north", "south") == ["north (node-id 12) is now called south"]
    assert done == [("name", 12, "south")]
    with pytest.raises(SettingError, match="NAME=taken: taken is the name of node 14; choose another name"):
        change("name", "north", "taken")
    with pytest.raises(SettingError, match="NAME=No Name: 'No Name' is not a name"):
        change("name", "north", "No Name")
