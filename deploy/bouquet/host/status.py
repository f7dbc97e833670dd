"""The state of each member of the fleet, from three sources that are asked at the same time.

The fleet knows which members run and how much memory they use. Each SuperNode writes a status file
(`bouquet.contract.node_status`). The SuperLink knows which nodes are online, including those on other machines.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bouquet.contract.node_status import NodeStatus
from bouquet.errors import FleetError
from bouquet.host.checks.flwr_connection import check_connection
from bouquet.host.endpoint import Endpoint
from bouquet.host.fleet.base import Fleet, Member
from bouquet.host.text_table import text_table

if TYPE_CHECKING:
    from bouquet.flower.control_client import KnownNode

COLUMNS = ("name", "role", "partition-id", "node-id", "state", "heartbeat", "memory", "runs", "device")
MIB = 1024**2
SUPERLINK_TIMEOUT = 15.0
"""Seconds that the SuperLink may take to answer."""


@dataclass(frozen=True)
class FleetStatus:
    """The state of a fleet at one moment.

    Attributes:
        members: The fleet's members; empty where the fleet is down.
        node_statuses: What the SuperNodes of this machine wrote.
        memory: Bytes that each member uses, by name.
        known_nodes: The nodes that the SuperLink knows.
        superlink_error: Why the SuperLink did not answer; empty where it did.
        connection_problem: Why `flwr` would not reach this fleet, and the fix; empty where it would.
    """

    members: Sequence[Member]
    node_statuses: Sequence[NodeStatus]
    memory: dict[str, int]
    known_nodes: "Sequence[KnownNode]"
    superlink_error: str = ""
    connection_problem: str = ""


def read_status(fleet: Fleet, control_port: int, flower_home: Path) -> FleetStatus:
    """Return the state of a fleet.

    Args:
        fleet: The fleet.
        control_port: Port of its Control API on 127.0.0.1.
        flower_home: Flower's folder, with the connection that `flwr` uses.
    """
    members = fleet.members()
    if not members:
        return FleetStatus(members, [], {}, [])
    pool = ThreadPoolExecutor()
    try:
        memory, node_statuses = pool.submit(fleet.memory), pool.submit(fleet.node_statuses)
        try:
            endpoint = Endpoint.of(fleet, control_port)
        except FleetError as error:
            return FleetStatus(members, node_statuses.result(), memory.result(), [], str(error))
        answer = pool.submit(list_known_nodes, endpoint)
        problem = _connection_problem(flower_home, endpoint)
        return FleetStatus(members, node_statuses.result(), memory.result(), *answer.result(), problem)
    finally:
        pool.shutdown(wait=False)  # after Ctrl-C the answers do not matter


def _connection_problem(flower_home: Path, endpoint: Endpoint) -> str:
    try:
        check_connection(flower_home, endpoint)
    except FleetError as error:
        return str(error)
    return ""


def list_known_nodes(endpoint: Endpoint) -> "tuple[list[KnownNode], str]":
    """Return the nodes that the SuperLink knows, and why it did not answer, empty where it did."""
    try:
        with endpoint.client() as client:
            return client.list_nodes(SUPERLINK_TIMEOUT), ""
    except FleetError as error:
        return [], str(error)


def status_table(status: FleetStatus, now: float | None = None) -> str:
    """Return a table of all members and of nodes on other machines, then lines about the SuperLink and `flwr`.

    Args:
        status: The state of the fleet.
        now: Seconds since the epoch, for the age of heartbeats; None for the current time.
    """
    now = time.time() if now is None else now
    rows = [_member_row(member, status, now) for member in status.members]
    local_node_ids = {node.node_id for node in status.node_statuses}
    rows += [
        ("(elsewhere)", "supernode", "-", str(node.node_id), node.status, _age(node.heartbeat, now), "-", "-", "-")
        for node in status.known_nodes
        if node.status == "online" and node.node_id not in local_node_ids
    ]
    if status.superlink_error:
        lines = [f"the SuperLink is unreachable: {status.superlink_error}"]
    else:
        online = [node.status for node in status.known_nodes].count("online")
        lines = [f"the SuperLink counts {online} SuperNodes as online"]
    if status.connection_problem:
        lines.append(f"flwr does not reach this fleet: {status.connection_problem}")
    return "\n".join([text_table(COLUMNS, rows), *lines])


def _member_row(member: Member, status: FleetStatus, now: float) -> tuple[str, ...]:
    node = next((node for node in status.node_statuses if _is_written_by(node, member)), None)
    memory = status.memory.get(member.name)
    return (
        member.name,
        member.role,
        _or_dash(member.partition_id),
        _or_dash(node.node_id if node else None),
        _state(member, node, status.known_nodes),
        _age(node.heartbeat if node else None, now),
        f"{memory / MIB:.0f}MiB" if memory is not None else "-",
        "-" if node is None else "idle" if node.run_id is None else str(node.run_id),
        node.device if node else "-",
    )


def _is_written_by(node: NodeStatus, member: Member) -> bool:
    return member.role == "supernode" and (node.host, node.partition_id) == (member.host, member.partition_id)


def _state(member: Member, node: NodeStatus | None, known_nodes: "Sequence[KnownNode]") -> str:
    """Return a member's state; the SuperLink's word counts more than the node's own."""
    if member.healthy and node:
        known = {known.node_id: known.status for known in known_nodes}.get(node.node_id or 0, "online")
        return member.state if known == "online" else known
    return member.state


def _age(heartbeat: float | None, now: float) -> str:
    return "-" if heartbeat is None else f"{max(0, now - heartbeat):.0f}s"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
