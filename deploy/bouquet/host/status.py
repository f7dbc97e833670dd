"""The operator's view: a line for each member of the fleet, from what three sources say at one moment.

The fleet knows what runs and what memory it takes, each SuperNode says what it is and does (deploy/bouquet/contract/node_status.py), and
the SuperLink says whom it counts as online, nodes on other machines included.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bouquet.contract.node_status import NodeStatus
from bouquet.errors import FleetError
from bouquet.host.connection import read_connection
from bouquet.host.fleet.base import Fleet, Member

if TYPE_CHECKING:
    from bouquet.flower.list_nodes import KnownNode

COLUMNS = ("name", "role", "partition-id", "node-id", "state", "heartbeat", "memory", "runs", "device")
MIB = 1024**2
SUPERLINK_SECONDS = 15.0
"""How long the SuperLink may take to answer."""


@dataclass(frozen=True)
class View:
    """What was found at one moment."""

    members: Sequence[Member]
    reports: Sequence[NodeStatus]
    memory: dict[str, int]
    """Bytes by member."""
    superlink: "Sequence[KnownNode]"
    """What the SuperLink says of each node."""
    trouble: str = ""
    """Why the SuperLink's word is missing."""


def look(fleet: Fleet, flower_home: Path) -> View:
    """Ask all three at the same time; no members where the fleet is down."""
    members = fleet.members()
    if not members:
        return View(members, [], {}, [])
    with ThreadPoolExecutor() as pool:
        memory, reports = pool.submit(fleet.memory), pool.submit(fleet.reports)
        superlink = pool.submit(ask_superlink, flower_home)
        nodes, trouble = superlink.result()
        return View(members, reports.result(), memory.result(), nodes, trouble)


def ask_superlink(flower_home: Path) -> "tuple[list[KnownNode], str]":
    """Return the nodes that the SuperLink knows, or why they are not known."""
    import grpc  # noqa: PLC0415  a second of imports, beside which Docker answers

    from bouquet.flower.list_nodes import list_nodes  # noqa: PLC0415

    try:
        address, certificates = read_connection(flower_home)
        return list_nodes(address, certificates.read_bytes() if certificates else None, SUPERLINK_SECONDS), ""
    except grpc.RpcError as error:
        return [], f"{address}: {error.code().name}: {error.details()}"
    except (FleetError, OSError) as error:
        return [], str(error)


def table(view: View, now: float | None = None) -> str:
    """Return the view as text: a line for each member, then for each node on another machine."""
    now = time.time() if now is None else now
    rows = [COLUMNS, *(_row(member, view, now) for member in view.members)]
    here = {report.node_id for report in view.reports}
    elsewhere = [node for node in view.superlink if node.status == "online" and node.node_id not in here]
    for node in elsewhere:
        age = _age(node.heartbeat, now)
        rows.append(("(elsewhere)", "supernode", "-", str(node.node_id), node.status, age, "-", "-", "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    online = [node.status for node in view.superlink].count("online")
    said = f"is not heard: {view.trouble}" if view.trouble else f"counts {online} SuperNodes as online"
    return "\n".join([*lines, f"the SuperLink {said}"])


def _row(member: Member, view: View, now: float) -> tuple[str, ...]:
    report = next((report for report in view.reports if _same(report, member)), None)
    memory = view.memory.get(member.name)
    return (
        member.name,
        member.role,
        _or_dash(member.partition_id),
        _or_dash(report.node_id if report else None),
        _state(member, report, view.superlink),
        _age(report.heartbeat if report else None, now),
        f"{memory / MIB:.0f}MiB" if memory is not None else "-",
        "-" if report is None else "idle" if report.run_id is None else str(report.run_id),
        report.device if report else "-",
    )


def _same(report: NodeStatus, member: Member) -> bool:
    return member.role == "supernode" and (report.host, report.partition_id) == (member.host, member.partition_id)


def _state(member: Member, report: NodeStatus | None, superlink: "Sequence[KnownNode]") -> str:
    # Healthy is what the node thinks; the SuperLink has the last word.
    if member.healthy and report:
        said = {node.node_id: node.status for node in superlink}.get(report.node_id or 0, "online")
        return member.state if said == "online" else said
    return member.state


def _age(heartbeat: float | None, now: float) -> str:
    return "-" if heartbeat is None else f"{max(0, now - heartbeat):.0f}s"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
