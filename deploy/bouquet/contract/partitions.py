"""Which node holds which partition, and how many partitions each run has: files in the SuperLink's run folder.

Two processes share them. Flower's SuperLink records the partition-id of each SuperNode in `partitions.json`, and the
number of partitions of the fleet in `size`. The process of a run's ServerApp reads both, and writes the run's number of
partitions into `num-partitions/<run-id>`. The SuperLink passes that number on to the SuperNodes, so that all nodes of a
run, newcomers too, split the data in the same way. See docs/decisions/0024-members-of-a-run.md.
"""

import json
import threading
from pathlib import Path

from bouquet.files import write_atomically

NODES, SIZE, RUNS = "partitions.json", "size", "num-partitions"

PARTITION_ID_HEADER = "bouquet-partition-id"
"""Metadata of a SuperNode's calls: the partition that it holds. Trailing metadata of the answers: the partition that a
node in a cluster, or one that has joined from another machine, holds from now on."""
SLOT_HEADER = "bouquet-slot"
"""Metadata of the calls of a SuperNode that lets the SuperLink choose its partition: its slot in the cluster, counted
from 0, or `JOINED`."""
JOINED = "joined"
"""In place of a slot: the node has joined from another machine."""
PINNED_HEADER = "bouquet-pinned"
"""Metadata of the calls of a node that has joined, and accepts only the partition in `PARTITION_ID_HEADER`."""
NUM_PARTITIONS_HEADER = "bouquet-num-partitions"
"""Trailing metadata of the SuperLink's answers: the number of partitions of a run, or of the fleet."""


class ReportedPartitions:
    """The partition-ids that SuperNodes report to the SuperLink, in memory and in `partitions.json`.

    Args:
        run_dir: The SuperLink's run folder; what an earlier process has recorded there counts.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._lock = threading.Lock()
        self._partition_ids = read_partition_ids(run_dir)

    def record(self, node_id: int, partition_id: int) -> None:
        """Record which partition a node holds; costs nothing if that is known already.

        Raises:
            OSError: The file cannot be written; a later call tries again.
        """
        if self._partition_ids.get(node_id) == partition_id:
            return
        with self._lock:
            partition_ids = self._partition_ids | {node_id: partition_id}
            write_partition_ids(self._run_dir, partition_ids)
            self._partition_ids = partition_ids


def write_partition_ids(run_dir: Path, partition_ids: dict[int, int]) -> None:
    """Write the partition-id of each node, by node id."""
    write_atomically(run_dir / NODES, json.dumps(partition_ids).encode("ascii"))


def read_partition_ids(run_dir: Path) -> dict[int, int]:
    """Return the partition-id of each node that has reported one, by node id; empty before the first write."""
    try:
        content = (run_dir / NODES).read_text(encoding="ascii")
    except FileNotFoundError:
        return {}
    return {int(node_id): partition_id for node_id, partition_id in json.loads(content).items()}


def write_num_partitions(run_dir: Path, run_id: int, num_partitions: int) -> None:
    """Write the number of partitions of a run."""
    (run_dir / RUNS).mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / RUNS / str(run_id), f"{num_partitions}\n".encode("ascii"))


def read_num_partitions(run_dir: Path, run_id: int) -> int | None:
    """Return the number of partitions of a run; None before it is written."""
    try:
        return int((run_dir / RUNS / str(run_id)).read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


def remove_num_partitions(run_dir: Path, run_id: int) -> None:
    """Remove the number of partitions of a run that has ended."""
    (run_dir / RUNS / str(run_id)).unlink(missing_ok=True)
