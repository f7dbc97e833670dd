"""All nodes that the SuperLink knows, on this machine and elsewhere: lists, names, removes and revokes them.

To remove and to revoke a node is the same for the SuperLink: it never accepts the node's key again. The two differ in
what they refuse. `remove` is for a node that has left for good, and refuses one that is online or that may come back as
a slot of a cluster. `revoke` is for a key that must not be used any more.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bouquet.contract.keys import fingerprint
from bouquet.contract.node_status import NodeStatus
from bouquet.errors import FleetError, SettingError
from bouquet.host.endpoint import Endpoint
from bouquet.host.fleet.base import Fleet, Member
from bouquet.host.join import check_name
from bouquet.host.text_table import text_table

if TYPE_CHECKING:
    from bouquet.flower.control_client import ControlClient, FleetDescription, KnownNode

COLUMNS = ("name", "node-id", "partition-id", "status", "site", "heartbeat", "key")
SITES = {"local": "this machine", "slot": "cluster", "joined": "elsewhere"}
API_SECONDS = 15.0
LIST_HINT = "list them: bouquet nodes"


@dataclass(frozen=True)
class ListedNode:
    """A node of the list.

    Attributes:
        node_id: Its id.
        name: Its name: the one that it was given, or that of its container on this machine; empty for none.
        partition_id: The partition that it holds; None if it holds none.
        status: `online`, `offline`, or `registered` for one that has never been online.
        kind: `local`, `slot` or `joined`; empty if it is unknown.
        fingerprint: Of its public key.
        heartbeat: When it last sent a heartbeat, in seconds since the epoch. None: never.
    """

    node_id: int
    name: str
    partition_id: int | None
    status: str
    kind: str
    fingerprint: str
    heartbeat: float | None

    def __str__(self) -> str:
        return f"{self.name} (node-id {self.node_id})" if self.name else f"node-id {self.node_id}"


@dataclass(frozen=True)
class NodeChange:
    """The command line of a change.

    Attributes:
        action: What to do.
        node: A node's name, its id, or the start of its key's fingerprint.
        name: Its new name.
    """

    action: Literal["name", "remove", "revoke"]
    node: str
    name: str = ""


def list_nodes(endpoint: Endpoint, fleet: Fleet) -> list[ListedNode]:
    """Return all nodes that may take part, online or not.

    Raises:
        FleetError: The SuperLink cannot be reached.
    """
    with endpoint.client() as api:
        return merge(api.list_nodes(API_SECONDS), api.describe(API_SECONDS), fleet.node_statuses(), fleet.members())


def merge(
    known: "Sequence[KnownNode]",
    description: "FleetDescription",
    statuses: Sequence[NodeStatus],
    members: Sequence[Member],
) -> list[ListedNode]:
    """Return the nodes with what each source says of them, sorted by partition, those without one at the end.

    Args:
        known: What Flower's API says.
        description: What the SuperLink says beyond it.
        statuses: What the SuperNodes of this machine have written; some may have ended.
        members: The members of the fleet on this machine.
    """
    running = {(member.host, member.partition_id): member.name for member in members if member.role == "supernode"}
    containers = {status.node_id: running.get((status.host, status.partition_id), "") for status in statuses}
    listed = []
    for node in known:
        if node.status == "unregistered":
            continue
        said = description.nodes.get(node.node_id)
        listed.append(
            ListedNode(
                node_id=node.node_id,
                name=(said.name if said else "") or containers.get(node.node_id, ""),
                partition_id=said.partition_id if said else None,
                status=node.status,
                kind=said.kind if said else "",
                fingerprint=_fingerprint(node.public_key),
                heartbeat=node.heartbeat,
            )
        )
    return sorted(listed, key=lambda node: (node.partition_id is None, node.partition_id or 0, node.name))


def nodes_table(nodes: Sequence[ListedNode], now: float | None = None) -> str:
    """Return a table of nodes.

    Args:
        nodes: The nodes.
        now: Seconds since the epoch, for the age of heartbeats; None for the current time.
    """
    now = time.time() if now is None else now
    rows = [
        (
            node.name or "-",
            str(node.node_id),
            "-" if node.partition_id is None else str(node.partition_id),
            node.status,
            SITES.get(node.kind, "-"),
            "-" if node.heartbeat is None else f"{max(0, now - node.heartbeat):.0f}s",
            node.fingerprint,
        )
        for node in nodes
    ]
    return text_table(COLUMNS, rows)


def find(nodes: Sequence[ListedNode], wanted: str) -> ListedNode:
    """Return the node that a user means: by its name, its id, or the start of its fingerprint.

    Raises:
        SettingError: There is no such node, or more than one.
    """
    prefix = wanted.removeprefix("SHA256:")
    found = [node for node in nodes if wanted and wanted in (node.name, str(node.node_id))]
    if not found and prefix:
        found = [node for node in nodes if node.fingerprint.removeprefix("SHA256:").startswith(prefix)]
    if len(found) != 1:
        problem = f"it is the start of {len(found)} fingerprints" if found else "there is no such node"
        raise SettingError("NODE", wanted, problem, LIST_HINT)
    return found[0]


def change_node(endpoint: Endpoint, fleet: Fleet, change: NodeChange) -> Iterator[str]:
    """Name, remove or revoke a node; yield lines about it.

    Raises:
        SettingError: There is no such node, or the name is not possible.
        FleetError: The node may not be removed, or the SuperLink cannot be reached.
    """
    if change.action == "name":
        check_name("NAME", change.name, change.name)
    node = find(list_nodes(endpoint, fleet), change.node)
    with endpoint.client() as api:
        if change.action == "name":
            _give_name(api, node, change.name)
            yield f"{node} is now called {change.name}"
            return
        if change.action == "remove":
            _refuse_removal(node)
        api.unregister(node.node_id, API_SECONDS)
    done = {"remove": "removed", "revoke": "revoked"}[change.action]
    yield f"{node} is {done}; its key {node.fingerprint} is never accepted again"
    if node.kind == "local":
        yield "this machine's partition gets another key with the next: make up"
    if node.kind == "slot":
        yield "its slot has no other key: it stays empty until the cluster gets another seed"


def _give_name(api: "ControlClient", node: ListedNode, name: str) -> None:
    from bouquet.flower.control_client import ControlApiError  # noqa: PLC0415

    try:
        api.name_node(node.node_id, name, API_SECONDS)
    except ControlApiError as error:
        if error.code != "ALREADY_EXISTS":
            raise
        raise SettingError("NAME", name, error.details, "choose another name") from error


def _refuse_removal(node: ListedNode) -> None:
    if node.status == "online":
        hint = f"stop it on its machine first, or cut it off: bouquet nodes revoke {node.name or node.node_id}"
        raise FleetError(f"{node} is online", hint)
    if node.kind == "slot":
        hint = "leave it in the list; a key that must not be used any more: bouquet nodes revoke"
        raise FleetError(f"{node} is a slot of a cluster, which comes back with the same key when it grows", hint)


def _fingerprint(public_key: bytes) -> str:
    try:
        return fingerprint(public_key)
    except ValueError:  # of a fleet without TLS: Flower accepts any key there
        return "-"
