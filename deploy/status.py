"""The operator's view: a line for each member of the fleet, from what three sources say at one moment.

The fleet knows what runs and what memory it takes, each SuperNode says what it is and does (deploy/node_file.py), and
the SuperLink says whom it counts as online, nodes on other machines included.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from deploy.connection import NAME
from deploy.fleet import Fleet, Member
from deploy.node_file import NodeReport
from deploy.run import FLWR, QUIET

COLUMNS = ("name", "role", "partition-id", "node-id", "state", "heartbeat", "memory", "runs", "device")
MIB = 1024**2
SUPERLINK_SECONDS = 15.0
"""How long the SuperLink may take to answer."""


@dataclass(frozen=True)
class View:
    """What was found at one moment."""

    members: Sequence[Member]
    reports: Sequence[NodeReport]
    memory: dict[str, int]
    """Bytes by member."""
    superlink: dict[int, str]
    """What the SuperLink says of each node, by node id: `online`, `offline`, ..."""
    trouble: str = ""
    """Why the SuperLink's word is missing."""


def look(fleet: Fleet) -> View:
    """Ask all three at the same time; no members where the fleet is down."""
    members = fleet.members()
    if not members:
        return View(members, [], {}, {})
    with ThreadPoolExecutor() as pool:
        memory, reports, superlink = pool.submit(fleet.memory), pool.submit(fleet.reports), pool.submit(ask_superlink)
        nodes, trouble = superlink.result()
        return View(members, reports.result(), memory.result(), nodes, trouble)


def ask_superlink() -> tuple[dict[int, str], str]:
    """Return the status of each node by its id, or why that is not known."""
    command = [str(FLWR), "supernode", "list", NAME, "--format", "json"]
    try:
        answer = subprocess.run(
            command, env=os.environ | QUIET, capture_output=True, text=True, check=False, timeout=SUPERLINK_SECONDS
        )
        return {int(node["node-id"]): node["status"] for node in json.loads(answer.stdout)["nodes"]}, ""
    except subprocess.TimeoutExpired:
        return {}, f"no answer within {SUPERLINK_SECONDS:g} s"
    except (ValueError, LookupError):
        return {}, ((answer.stderr or answer.stdout).strip().splitlines() or ["no answer"])[-1]


def table(view: View, now: float | None = None) -> str:
    """Return the view as text: a line for each member, then for each node on another machine."""
    now = time.time() if now is None else now
    rows = [COLUMNS, *(_row(member, view, now) for member in view.members)]
    here = {report.node_id for report in view.reports}
    for node_id, status in view.superlink.items():
        if status == "online" and node_id not in here:
            rows.append(("(elsewhere)", "supernode", "-", str(node_id), status, "-", "-", "-", "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    online = list(view.superlink.values()).count("online")
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
        f"{max(0, now - report.heartbeat):.0f}s" if report and report.heartbeat else "-",
        f"{memory / MIB:.0f}MiB" if memory is not None else "-",
        "-" if report is None else "idle" if report.run_id is None else str(report.run_id),
        report.device if report else "-",
    )


def _same(report: NodeReport, member: Member) -> bool:
    return member.role == "supernode" and (report.host, report.partition_id) == (member.host, member.partition_id)


def _state(member: Member, report: NodeReport | None, superlink: dict[int, str]) -> str:
    # Healthy is what the node thinks; the SuperLink has the last word.
    if member.healthy and report and report.node_id is not None:
        said = superlink.get(report.node_id, "online")
        return member.state if said == "online" else said
    return member.state


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
