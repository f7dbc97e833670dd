"""What each SuperNode says of itself, in a small file of a folder that all share: for `make status`, and for people.

One look into one container shows every node of the machine. Written when something changes, at once or not at all;
read by whoever wants to know. A file whose host is gone is of a node that is gone.
"""

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

IDS = ("node_id", "run_id")
"""Texts in the file: 64 bits are more than a JSON number holds."""


@dataclass(frozen=True)
class NodeStatus:
    """What a node said last."""

    partition_id: int
    host: str
    pid: int
    """In its own container."""
    device: str
    node_id: int | None = None
    """As the SuperLink knows it."""
    online: bool = False
    heartbeat: float | None = None
    """Seconds since the epoch: when the SuperLink last acknowledged one."""
    run_id: int | None = None
    """The run whose message it works on."""


class NodeStatusFile:
    """This node's own file."""

    def __init__(self, folder: Path, partition_id: int, device: str) -> None:
        """Write the first report of this process."""
        self._path = folder / f"partition-{partition_id}.json"
        self._lock = threading.Lock()
        self._report = NodeStatus(partition_id, socket.gethostname(), os.getpid(), device)
        self._write()

    def registered(self, node_id: int) -> None:
        """Say that the SuperLink has taken this node; nothing is known of heartbeats."""
        self._note(node_id=node_id, online=True)

    def online(self, node_id: int) -> None:
        """Say that the SuperLink counts this node as online, as of now."""
        self._note(node_id=node_id, online=True, heartbeat=time.time())

    def offline(self) -> None:
        """Say that the SuperLink does not answer."""
        self._note(online=False)

    def works_on(self, run_id: int | None) -> None:
        """Say whose message the node works on."""
        self._note(run_id=run_id)

    def _note(self, **changes: object) -> None:
        with self._lock:
            self._report = replace(self._report, **changes)  # type: ignore[arg-type]
            self._write()

    def _write(self) -> None:
        said = asdict(self._report)
        for name in IDS:
            said[name] = None if said[name] is None else str(said[name])
        part = self._path.with_suffix(f".{self._report.host}.{self._report.pid}")
        with suppress(OSError):  # a full disk is no reason for a node to fail
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(said), encoding="utf-8")
            part.replace(self._path)


def read(path: Path) -> NodeStatus | None:
    """Return a node's report; None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        values = {field.name: found.get(field.name) for field in fields(NodeStatus)}
        for name in IDS:
            values[name] = None if values[name] is None else int(values[name])
        return NodeStatus(**values)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def read_all(folder: Path) -> list[NodeStatus]:
    """Return the reports in a folder, by partition-id."""
    reports = [report for path in folder.glob("partition-*.json") if (report := read(path))]
    return sorted(reports, key=lambda report: report.partition_id)
