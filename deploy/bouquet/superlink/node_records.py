"""What the SuperLink remembers of its nodes and Flower's database has no column for: their names and their kinds."""

import json
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bouquet.files import write_atomically

FILE = "nodes.json"
LOCAL, SLOT = "local", "slot"
"""The kinds of nodes, beside `bouquet.contract.partitions.JOINED`: of the fleet's machine, and of a cluster."""


class NameTakenError(Exception):
    """Another node has the name; the message says which."""


@dataclass(frozen=True)
class NodeRecord:
    """What is remembered of a node.

    Attributes:
        name: Its name; empty if it was given none.
        kind: `local`, `slot` or `joined`; empty before its first call.
    """

    name: str = ""
    kind: str = ""


class NodeRecords:
    """The records of all nodes, by node id, in memory and in a file of the state folder. Thread-safe."""

    def __init__(self, state_dir: Path) -> None:
        """Read what an earlier process has written."""
        self._file = state_dir / FILE
        self._lock = threading.Lock()
        self._records = self._read()

    def of(self, node_id: int) -> NodeRecord:
        """Return the record of a node."""
        return self._records.get(node_id, NodeRecord())

    def note_kind(self, node_id: int, kind: str) -> None:
        """Remember the kind of a node; costs nothing if it is known already.

        Raises:
            OSError: The file cannot be written; a later call tries again.
        """
        if self.of(node_id).kind != kind:
            with self._lock:
                self._write(self._records | {node_id: replace(self.of(node_id), kind=kind)})

    def give_name(self, node_id: int, name: str) -> None:
        """Name a node.

        Raises:
            NameTakenError: Another node has this name.
            OSError: The file cannot be written.
        """
        with self._lock:
            for other, record in self._records.items():
                if record.name == name and other != node_id:
                    raise NameTakenError(f"{name} is the name of node {other}")
            self._write(self._records | {node_id: replace(self.of(node_id), name=name)})

    def forget(self, node_id: int) -> None:
        """Forget a node that was removed; its name is free again.

        Raises:
            OSError: The file cannot be written.
        """
        with self._lock:
            if node_id in self._records:
                self._write({other: record for other, record in self._records.items() if other != node_id})

    def _write(self, records: dict[int, NodeRecord]) -> None:
        content = {node_id: asdict(record) for node_id, record in records.items()}
        write_atomically(self._file, json.dumps(content).encode("ascii"), durable=True)
        self._records = records

    def _read(self) -> dict[int, NodeRecord]:
        try:
            content = json.loads(self._file.read_text(encoding="ascii"))
        except FileNotFoundError:
            return {}
        return {int(node_id): NodeRecord(**record) for node_id, record in content.items()}
