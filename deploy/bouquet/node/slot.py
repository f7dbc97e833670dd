"""A SuperNode's slot in a fleet that grows and shrinks: how it acquires one, and when it gives it up.

A slot is a partition-id below the fleet's size. A SuperNode that finds no free slot waits, and logs the reason once:
it is a spare that takes over when another SuperNode ends. A SuperNode that holds a slot watches the fleet's size.
While its partition-id is below the size, only `num-partitions` changes, for runs that start later. Otherwise the
SuperNode ends after its current message; its supervisor (Docker, or the process fleet's) restarts it, and it acquires
another slot.
"""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bouquet.contract.fleet_size import read_partitions
from bouquet.contract.leases import is_claimed, lease_partition
from bouquet.errors import FleetError

ACQUIRE_POLL_SECONDS = 1.0
"""Interval at which a SuperNode without a slot tries to acquire one."""
SIZE_POLL_SECONDS = 3.0
"""Interval at which a SuperNode with a slot reads the fleet's size. A read costs 0.3 ms of CPU, in each node of an idle
fleet. Unlike inotify, it also sees what another machine has written to a shared volume."""
WAIT_NOTICE_SECONDS = 10.0
"""How long a SuperNode waits for a slot before it logs the reason. In a growing fleet containers may start before the
new size is written, and in a shrinking one they end one by one."""


class FleetSizeListener(Protocol):
    """What `watch_fleet_size` calls, from its thread."""

    def resize(self, supernodes: int) -> None:
        """Make runs that start from now on see `supernodes` partitions."""

    def leave(self, reason: str) -> None:
        """End the SuperNode, after its current message."""


def acquire_partition(
    leases: Path,
    size: Callable[[], int | None],
    wanted: int | None,
    partition_id_source: str,
    notice_seconds: float = WAIT_NOTICE_SECONDS,
) -> tuple[int, int]:
    """Acquire a partition-id, as soon as one is free; return it with the fleet's size.

    Args:
        leases: Folder that all SuperNodes of the fleet share.
        size: Returns the fleet's size; None while it is unknown.
        wanted: The partition-id that this SuperNode is pinned to; None for any free one.
        partition_id_source: The setting that `wanted` comes from, for error messages.
        notice_seconds: How long to wait before logging the reason.

    Raises:
        SettingError: Another SuperNode has claimed `wanted`.
    """
    began, logged = time.monotonic(), ""
    while True:
        supernodes = size()
        if supernodes is None:
            reason = "the fleet size is not set yet; the service `setup` writes it"
        else:
            try:
                return lease_partition(leases, supernodes, wanted, partition_id_source), supernodes
            except FleetError as error:
                reason = str(error)
        if reason != logged and time.monotonic() - began >= notice_seconds:
            sys.stderr.write(f"bouquet: waiting for a free partition: {reason}\n")
            logged = reason
        time.sleep(ACQUIRE_POLL_SECONDS)


def watch_fleet_size(
    size_file: Path | None, leases: Path, partition_id: int, pinned: bool, listener: FleetSizeListener
) -> None:
    """Watch in a thread whether this SuperNode may keep its partition, and call `listener` on changes.

    Args:
        size_file: The file with the fleet's size; None if the size does not change.
        leases: Folder that all SuperNodes of the fleet share.
        partition_id: The partition that this SuperNode holds.
        pinned: Whether it must hold this very partition, so that it yields to no other SuperNode.
        listener: Called with each new size, and once when the SuperNode must leave.
    """
    threading.Thread(
        target=_watch, args=(size_file, leases, partition_id, pinned, listener), name="fleet-size", daemon=True
    ).start()


def _watch(size_file: Path | None, leases: Path, partition_id: int, pinned: bool, listener: FleetSizeListener) -> None:
    known = None
    while True:
        supernodes = read_partitions(size_file) if size_file else None
        if supernodes is not None and partition_id >= supernodes:
            return listener.leave(
                f"the fleet now has {supernodes} SuperNodes, so this one cannot keep partition-id {partition_id} and "
                "acquires another"
            )
        if not pinned and is_claimed(leases, partition_id):
            return listener.leave(
                f"a SuperNode that is pinned to partition-id {partition_id} claims it, so this one acquires another"
            )
        if supernodes is not None and supernodes != known:
            listener.resize(supernodes)
            known = supernodes
        time.sleep(SIZE_POLL_SECONDS)
