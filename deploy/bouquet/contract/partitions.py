"""Which node holds which partition, and how many partitions each run has: files in the SuperLink's run folder.

Three processes share them. Flower's SuperLink records the partition-id that each SuperNode reports, in
`partitions.json`. The process of a run's ServerApp reads it, and writes the run's number of partitions into
`num-partitions/<run-id>`. The SuperLink passes that number on to the SuperNodes, so that all nodes of a run, newcomers
too, split the data in the same way. See docs/decisions/0024-members-of-a-run.md.
"""

import json
from pathlib import Path

from bouquet.files import write_atomically

NODES, RUNS = "partitions.json", "num-partitions"


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
