"""A SuperNode's place in a fleet that grows and shrinks: how it comes to one, keeps it, and gives it up.

A place is a partition-id below the fleet's size. A SuperNode for which there is none waits, and says so once: it is
a spare that takes over when another goes. One that holds a place follows the size: where its partition-id is still
below it, only `num-partitions` changes, for runs that begin from then on; where it is not, the SuperNode ends after
the message that it works on, is started again by whoever keeps it running, and takes another place.
"""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bouquet.contract.fleet_size import read_size
from bouquet.contract.leases import is_claimed, lease_partition
from bouquet.errors import FleetError

LOOK = 1.0
"""Seconds between two looks of one that waits for a place."""
FOLLOW = 3.0
"""Seconds between two looks of one that has a place: a look costs 0.3 ms of CPU, in each node of an idle fleet. It sees
what a machine elsewhere has written, too."""
PATIENCE = 10.0
"""Seconds that a SuperNode waits before it says so: containers of a fleet that grows may start before its size is
written, and those of one that shrinks end one by one."""


class FleetSizeListener(Protocol):
    """What is to follow the fleet's size: see `bouquet.flower.supernode_main.Node`."""

    def resize(self, supernodes: int) -> None:
        """Have runs that begin from now on see that many partitions."""

    def leave(self, reason: str) -> None:
        """End, after the message that is being worked on."""


def acquire_partition(
    leases: Path,
    size: Callable[[], int | None],
    wanted: int | None,
    partition_id_source: str,
    patience: float = PATIENCE,
) -> tuple[int, int]:
    """Take a partition-id, as soon as there is one; return it and the fleet's size.

    Raises
    ------
    SettingError
        `wanted` is claimed by another SuperNode.
    """
    began, told = time.monotonic(), ""
    while True:
        supernodes = size()
        if supernodes is None:
            reason = "the fleet's size is not known yet; it is written by the service `setup`"
        else:
            try:
                return lease_partition(leases, supernodes, wanted, partition_id_source), supernodes
            except FleetError as error:
                reason = str(error)
        if reason != told and time.monotonic() - began >= patience:
            sys.stderr.write(f"bouquet: waiting for a place: {reason}\n")
            told = reason
        time.sleep(LOOK)


def watch_fleet_size(
    size_file: Path | None, leases: Path, partition_id: int, claimed: bool, follower: FleetSizeListener
) -> None:
    """Look from now on, in a thread, whether the place is still one, and tell `follower`.

    `size_file`: None for a fleet whose size does not change. `claimed`: the SuperNode must have this very partition,
    and makes room for nobody.
    """
    threading.Thread(
        target=_follow, args=(size_file, leases, partition_id, claimed, follower), name="place", daemon=True
    ).start()


def _follow(
    size_file: Path | None, leases: Path, partition_id: int, claimed: bool, follower: FleetSizeListener
) -> None:
    known = None
    while True:
        supernodes = read_size(size_file) if size_file else None
        if supernodes is not None and partition_id >= supernodes:
            return follower.leave(
                f"the fleet has {supernodes} SuperNodes now, and this one holds partition-id "
                f"{partition_id}: it takes another"
            )
        if not claimed and is_claimed(leases, partition_id):
            return follower.leave(
                f"partition-id {partition_id} is claimed by a SuperNode that must have it: this one takes another"
            )
        if supernodes is not None and supernodes != known:
            follower.resize(supernodes)
            known = supernodes
        time.sleep(FOLLOW)
