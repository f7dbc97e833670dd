"""Which partition a SuperNode holds: an exclusive lease on one of 0 to N-1, released by the kernel.

Compose's replica number cannot serve as partition-id: after a removal the numbers have gaps and exceed N-1. So each
SuperNode takes an exclusive lock (`flock(2)`) on the first free `partition-<k>` file in a folder that all SuperNodes
share. The lock belongs to the open file: it survives `exec`, and the kernel releases it when the process ends for any
reason. So a partition never has two holders, and never stays taken after its holder's end. See
docs/decisions/0002-partition-id-by-lease.md.

A SuperNode pinned to a partition locks `claim-<k>` first. A SuperNode that holds a claimed partition without being
pinned to it moves to another one (`bouquet.node.slot`), so neither waits forever.

`python -m bouquet.contract.leases <folder>` prints the holders as JSON.
"""

import fcntl
import json
import math
import os
import socket
import sys
from functools import partial
from pathlib import Path

from bouquet.contract.fleet_size import SIZE, read_partitions
from bouquet.errors import FleetError, SettingError
from bouquet.polling import poll_until

CLAIM_POLL_SECONDS = 0.5
"""Interval at which a pinned SuperNode retries a claimed partition that another SuperNode still holds."""


def lease_partition(
    leases: Path, supernodes: int, wanted: int | None = None, partition_id_source: str = "PARTITION_ID"
) -> int:
    """Acquire a partition-id until this process ends; the lease survives `exec`.

    Args:
        leases: Folder that all SuperNodes of the fleet share; created if missing.
        supernodes: The fleet's size N: partition-ids are 0 to N-1.
        wanted: The partition-id that this SuperNode is pinned to; None for the lowest that is free and unclaimed.
        partition_id_source: The setting that `wanted` comes from, for error messages.

    Raises:
        SettingError: Another SuperNode has claimed `wanted`.
        FleetError: All N partitions are taken, or `wanted` is not one of them.
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
            f"SUPERNODES={supernodes}: partition-id {wanted} (from {partition_id_source}) is not in "
            f"0..{supernodes - 1}",
            f"to grow the fleet: SUPERNODES={wanted + 1} docker compose up -d",
        )
    claim, partition = leases / f"claim-{wanted}", leases / f"partition-{wanted}"
    if not _lock(claim):
        raise SettingError(
            partition_id_source,
            wanted,
            f"taken by the SuperNode on {_holder(claim)}",
            f"give each SuperNode its own {partition_id_source}, or leave it out",
        )
    if not _lock(partition):
        sys.stderr.write(
            f"bouquet: waiting for partition-id {wanted}: the SuperNode on {_holder(partition)} releases it after its "
            "current message\n"
        )
        poll_until(partial(_lock, partition), math.inf, CLAIM_POLL_SECONDS)
    return wanted


def is_claimed(leases: Path, partition_id: int) -> bool:
    """Return whether a running SuperNode is pinned to this partition."""
    return _is_locked(leases / f"claim-{partition_id}")


def holders(leases: Path) -> dict[int, str]:
    """Return the host that holds each partition of the fleet, by partition-id."""
    partitions = read_partitions(leases / SIZE)
    files = {int(file.name.rpartition("-")[2]): file for file in leases.glob("partition-*")}
    return {
        partition_id: _holder(file)
        for partition_id, file in sorted(files.items())
        if (partitions is None or partition_id < partitions) and _is_locked(file)
    }


class Lease:
    """A lease, or a claim, that this process holds on behalf of a node on another machine, until `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another node have it."""
        os.close(self._descriptor)


def try_lease(leases: Path, partition_id: int, holder: str) -> Lease | None:
    """Return a lease on a partition; None if another node holds it.

    Args:
        leases: Folder that all SuperNodes of the machine share; it must exist.
        partition_id: The partition.
        holder: Whom to name as its holder.
    """
    descriptor = _locked(leases / f"partition-{partition_id}", holder)
    return None if descriptor is None else Lease(descriptor)


def try_claim(leases: Path, partition_id: int, holder: str) -> Lease | None:
    """Return a claim to a partition, so that a node that is not pinned to it gives it up; None if it is claimed."""
    descriptor = _locked(leases / f"claim-{partition_id}", holder)
    return None if descriptor is None else Lease(descriptor)


def _lock(path: Path) -> bool:
    descriptor = _locked(path, socket.gethostname())
    if descriptor is None:
        return False
    os.set_inheritable(descriptor, True)  # exec passes the lease on to the serving process
    return True


def _locked(path: Path, holder: str) -> int | None:
    """Return the descriptor of a file that is locked now and names its holder; None if another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{holder}\n".encode())
    return descriptor


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
