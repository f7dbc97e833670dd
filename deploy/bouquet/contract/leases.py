"""Which partition a SuperNode holds: an exclusive lease on one of 0 .. N-1, freed by the kernel.

Compose's replica number is no partition-id (after a removal it leaves holes and runs past N-1), so each
SuperNode takes an exclusive lock (`flock(2)`) on the first free `partition-<k>` file of a folder that all
share. The lock belongs to the open file, so it survives `exec` and ends with the process, however that
ends: never two holders, never a hole. See docs/decisions/0002-partition-id-by-lease.md.

Who must have one in particular, because it was told so, locks `claim-<k>` first: whoever took that partition only
because it was free goes elsewhere (`deploy/bouquet/node/slot.py`), so that neither waits for ever.

`python -m bouquet.contract.leases <folder>` prints who holds which.
"""

import fcntl
import json
import os
import socket
import sys
import time
from pathlib import Path

from bouquet.errors import FleetError, SettingError

HANDOVER = 0.5
"""Seconds between two looks at a claimed partition whose holder is about to leave it."""


def lease_partition(
    leases: Path, supernodes: int, wanted: int | None = None, partition_id_source: str = "PARTITION_ID"
) -> int:
    """Take a partition-id for the rest of this process's life, `exec` included.

    Parameters
    ----------
    leases : Path
        Folder that all SuperNodes of the fleet share; made where missing.
    supernodes : int
        N: partition-ids are 0 to N-1.
    wanted : int | None
        The one partition-id to take, or None for the lowest that is free and that nobody claims.
    partition_id_source : str
        The setting that `wanted` comes from, for the error.

    Raises
    ------
    SettingError
        `wanted` is claimed by another SuperNode.
    FleetError
        All N are held, or `wanted` is not among them.
    """
    leases.mkdir(parents=True, exist_ok=True)
    if wanted is None:
        for partition_id in range(supernodes):
            if not is_claimed(leases, partition_id) and _lock(leases / f"partition-{partition_id}"):
                return partition_id
        raise FleetError(
            f"SUPERNODES={supernodes}: all partition-ids 0..{supernodes - 1} are taken",
            f"this is one SuperNode too many; to grow the fleet: SUPERNODES={supernodes + 1} docker compose up -d",
        )
    if wanted >= supernodes:
        raise FleetError(
            f"SUPERNODES={supernodes}: the partition-id {wanted} that {partition_id_source} gives is none of 0..{supernodes - 1}",
            f"to grow the fleet: SUPERNODES={wanted + 1} docker compose up -d",
        )
    if not _lock(leases / f"claim-{wanted}"):
        raise SettingError(
            partition_id_source,
            wanted,
            f"taken by the SuperNode on {_holder(leases / f'claim-{wanted}')}",
            f"give each SuperNode its own, or leave {partition_id_source} out",
        )
    told = False
    while not _lock(leases / f"partition-{wanted}"):
        if not told:
            host = _holder(leases / f"partition-{wanted}")
            sys.stderr.write(f"bouquet: waiting for partition-id {wanted}: the SuperNode on {host} makes room for it\n")
            told = True
        time.sleep(HANDOVER)
    return wanted


def is_claimed(leases: Path, partition_id: int) -> bool:
    """Whether a SuperNode lives that must have this very partition."""
    return _is_locked(leases / f"claim-{partition_id}")


def holders(leases: Path) -> dict[int, str]:
    """Return the host that holds each partition, by partition-id."""
    files = {int(file.name.rpartition("-")[2]): file for file in leases.glob("partition-*")}
    return {partition_id: _holder(file) for partition_id, file in sorted(files.items()) if _is_locked(file)}


def _lock(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    os.set_inheritable(descriptor, True)  # the lease passes through exec to flower-supernode
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{socket.gethostname()}\n".encode())
    return True


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _holder(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() or "another host"


if __name__ == "__main__":
    print(json.dumps(holders(Path(sys.argv[1]))))
