"""The status of each SuperNode: a small JSON file in a folder that all SuperNodes share, for `make status`.

Reading the folder in one container shows every SuperNode of the machine. A SuperNode replaces its file at each change.
The file of a SuperNode that has ended stays: its host no longer exists.
"""

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from bouquet.files import write_atomically

IDS = ("node_id", "run_id")
"""Fields that the file stores as text: JSON readers may round a 64-bit number."""


@dataclass(frozen=True)
class NodeStatus:
    """The last status of a SuperNode.

    Attributes:
        partition_id: The partition that it holds.
        host: Its host name.
        pid: Its process id, in its own container.
        device: What its apps compute on.
        node_id: Its id at the SuperLink; None before it has registered.
        online: Whether the SuperLink counts it as online.
        heartbeat: When the SuperLink last acknowledged a heartbeat, in seconds since the epoch.
        run_id: The run whose message it is processing; None while idle.
    """

    partition_id: int
    host: str
    pid: int
    device: str
    node_id: int | None = None
    online: bool = False
    heartbeat: float | None = None
    run_id: int | None = None


class NodeStatusFile:
    """The status file of this process's SuperNode."""

    def __init__(self, folder: Path, partition_id: int, device: str) -> None:
        """Write the first status: neither registered nor online."""
        self._path = folder / f"partition-{partition_id}.json"
        self._lock = threading.Lock()
        self._status = NodeStatus(partition_id, socket.gethostname(), os.getpid(), device)
        self._write()

    def set_registered(self, node_id: int) -> None:
        """Record that the SuperLink has registered this node, where heartbeats cannot be observed."""
        self._update(node_id=node_id, online=True)

    def set_online(self, node_id: int) -> None:
        """Record that the SuperLink counts this node as online, as of now."""
        self._update(node_id=node_id, online=True, heartbeat=time.time())

    def set_offline(self) -> None:
        """Record that the SuperLink is unreachable."""
        self._update(online=False)

    def set_run(self, run_id: int | None) -> None:
        """Record the run whose message the node is processing; None while idle."""
        self._update(run_id=run_id)

    def _update(self, **changes: object) -> None:
        with self._lock:
            self._status = replace(self._status, **changes)  # type: ignore[arg-type]
            self._write()

    def _write(self) -> None:
        values = asdict(self._status)
        for name in IDS:
            values[name] = None if values[name] is None else str(values[name])
        with suppress(OSError):  # a full disk must not make a node fail
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(values).encode())


def read(path: Path) -> NodeStatus | None:
    """Return the status in a file; None for a missing or unreadable file."""
    try:
        return parse_status(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def parse_status(text: str) -> NodeStatus | None:
    """Return the status in the text of a file; None for any other text."""
    try:
        found = json.loads(text)
        values = {field.name: found.get(field.name) for field in fields(NodeStatus)}
        for name in IDS:
            values[name] = None if values[name] is None else int(values[name])
        return NodeStatus(**values)
    except (ValueError, TypeError, AttributeError):
        return None


def read_all(folder: Path) -> list[NodeStatus]:
    """Return every readable status in a folder, ordered by partition-id."""
    statuses = [status for path in folder.glob("partition-*.json") if (status := read(path))]
    return sorted(statuses, key=lambda status: status.partition_id)
