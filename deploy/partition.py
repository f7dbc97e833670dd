"""Which partition a SuperNode holds: an exclusive lease on one of 0 .. N-1, freed by the kernel.

Compose's replica number is no partition-id (after a removal it leaves holes and runs past N-1), so each
SuperNode takes an exclusive lock (`flock(2)`) on the first free `partition-<k>` file of a folder that all
share. The lock belongs to the open file, so it survives `exec` and ends with the process, however that
ends: never two holders, never a hole. See docs/decisions/0002-partition-id-by-lease.md.
"""

import fcntl
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from deploy.errors import FleetError, SettingError


def take_partition(leases: Path, supernodes: int, wanted: int | None = None) -> int:
    """Take a partition-id for the rest of this process's life, `exec` included.

    Parameters
    ----------
    leases : Path
        Folder that all SuperNodes of the fleet share; made where missing.
    supernodes : int
        N: partition-ids are 0 to N-1.
    wanted : int | None
        The one partition-id to take, or None for the lowest free one.

    Raises
    ------
    SettingError
        `wanted` is held by another SuperNode.
    FleetError
        All N are held.
    """
    leases.mkdir(parents=True, exist_ok=True)
    candidates: Iterable[int] = range(supernodes) if wanted is None else (wanted,)
    for partition_id in candidates:
        if _lock(leases / f"partition-{partition_id}"):
            return partition_id
    if wanted is not None:
        holder = (leases / f"partition-{wanted}").read_text(encoding="utf-8").strip()
        raise SettingError(
            "PARTITION_ID",
            wanted,
            f"taken by the SuperNode on {holder or 'another host'}",
            "give each SuperNode its own, or leave PARTITION_ID out",
        )
    raise FleetError(
        f"SUPERNODES={supernodes}: all partition-ids 0..{supernodes - 1} are taken",
        f"this is one SuperNode too many; to grow the fleet: SUPERNODES={supernodes + 1} docker compose up -d",
    )


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
