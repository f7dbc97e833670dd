"""Which node holds which partition, and how many partitions there are: the SuperLink decides, so that all agree.

There are three kinds of nodes:

- Nodes of this machine acquire a partition by a lease before they call (`bouquet.contract.leases`), and report it.
- Nodes of a cluster, Swarm's or Kubernetes', have a slot. They get the partition with that number if it is free.
- Nodes that have joined from other machines get a partition, and keep it while the fleet grows.

A node of the last two kinds learns its partition from the answers to its calls. On one machine the SuperLink takes a
lease for each node that has joined, so that no node of the machine acquires the same partition.

The fleet's size is the number that `setup` has written (`bouquet.contract.fleet_size`), or in a cluster the number of
its slots: the nodes that call show how many there are. Joined nodes come on top. See
docs/decisions/0030-partitions-from-the-superlink.md.
"""

import json
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bouquet.contract.fleet_size import read_size, write_joined, write_size
from bouquet.contract.leases import Lease, is_claimed, try_claim, try_lease
from bouquet.contract.partitions import (
    JOINED,
    PARTITION_ID_HEADER,
    PINNED_HEADER,
    SIZE,
    SLOT_HEADER,
    ReportedPartitions,
)
from bouquet.files import write_atomically
from bouquet.runtime.steady_clock import process_clock
from bouquet.superlink.node_records import LOCAL, SLOT

ENDED_SECONDS = 30.0
"""A node that has ended in order counts for so long: time for a restart, or for a rolling update to replace it."""
LOST_SECONDS = 600.0
"""A node of a cluster that was lost counts for so long: time for the engine to start it on another machine."""
JOINED_LOST_SECONDS = 60.0
"""A joined node that was lost counts for so long: nobody but its owner starts it again."""
SILENT_SECONDS = 60.0
"""A node that has not called for so long is lost: Flower's nodes send a heartbeat every 30 s."""
UPDATE_SECONDS = 1.0
"""Time between two looks at the size that `setup` has written, and at the nodes that have gone."""


class NoPartitionError(Exception):
    """No partition is free for a node now; the message is the reason."""


@dataclass(frozen=True)
class Origin:
    """Where a node gets its partition from, as the metadata of its calls say.

    Attributes:
        partition_id: The partition that it holds, or held last; None if it has none yet.
        slot: Its slot in a cluster, from 0; None outside of a cluster.
        joined: Whether it has joined from another machine.
        pinned: Whether it accepts only `partition_id`.
    """

    partition_id: int | None = None
    slot: int | None = None
    joined: bool = False
    pinned: bool = False

    @classmethod
    def of(cls, metadata: Mapping[str, str | bytes]) -> Self:
        """Return what a call says; a stock SuperNode says nothing."""
        slot = metadata.get(SLOT_HEADER)
        return cls(
            partition_id=_number(metadata.get(PARTITION_ID_HEADER)),
            slot=_number(slot),
            joined=slot == JOINED,
            pinned=metadata.get(PINNED_HEADER) == "1",
        )

    @property
    def is_assigned(self) -> bool:
        """Whether the SuperLink assigns the node's partition."""
        return self.joined or self.slot is not None

    @property
    def kind(self) -> str:
        """The kind of the node."""
        return JOINED if self.joined else LOCAL if self.slot is None else SLOT


def _number(value: str | bytes | None) -> int | None:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None


@dataclass
class _Node:
    """A node, while it counts."""

    slot: int | None
    joined: bool
    called: float  # when it called last
    partition_id: int | None = None  # None: no partition is assigned
    lease: Lease | None = None
    claim: Lease | None = None
    gone_since: float | None = None  # None: online, as far as is known
    ended: bool = False  # in order; otherwise it was lost

    def counts(self, now: float) -> bool:
        """Return whether the node belongs to the fleet, or is expected back."""
        gone_since = self.called + SILENT_SECONDS if self.gone_since is None else self.gone_since
        lost_seconds = JOINED_LOST_SECONDS if self.joined else LOST_SECONDS
        return now - gone_since < (ENDED_SECONDS if self.ended else lost_seconds)

    def release(self) -> None:
        """Give up its leases."""
        for lease in (self.lease, self.claim):
            if lease is not None:
                lease.release()
        self.lease = self.claim = None


class PartitionMap:
    """The partitions of a fleet and their holders. Thread-safe."""

    def __init__(
        self,
        run_dir: Path,
        state_dir: Path,
        size_file: Path | None = None,
        expected: int | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        """Continue with what an earlier process has written.

        Args:
            run_dir: The SuperLink's run folder, with the files of `bouquet.contract.partitions`.
            state_dir: The folder that outlives the container; it keeps the size of a cluster.
            size_file: The file with the size of a fleet on one machine, in the folder with its leases; None in a
                cluster.
            expected: The size of a cluster that was just started; None if it is unknown.
            now: Returns the time in seconds, without jumps.
        """
        self._now = now or process_clock().time
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._run_dir = run_dir
        self._reported = ReportedPartitions(run_dir)
        self._size_file = size_file
        self._slots = _SlotCount(state_dir / "slots.json", expected, self._now())
        self._nodes: dict[int, _Node] = {}
        self._total: int | None = None  # the number of partitions
        self._written: tuple[int | None, int] | None = None  # the number of partitions and of joined nodes
        self.update()

    @property
    def num_partitions(self) -> int | None:
        """The number of partitions of the fleet; None if no size is known, so that every node takes part."""
        return self._total

    def admit(self, node_id: int, origin: Origin) -> int | None:
        """Note a call of a node; return the partition that the SuperLink assigns to it, if it assigns one.

        Raises:
            NoPartitionError: No partition is free for it now.
            OSError: A file cannot be written; a later call tries again.
        """
        if not origin.is_assigned:
            if origin.partition_id is not None:
                self._reported.record(node_id, origin.partition_id)
            return None
        with self._lock:
            now = self._now()
            node = self._nodes.get(node_id)
            if node is None:
                node = self._nodes[node_id] = _Node(origin.slot, origin.joined, now)
                self._update()
            node.called, node.gone_since, node.ended = now, None, False
            if not self._may_keep(node, origin):
                self._assign(node_id, node, origin)
            if node.partition_id is None:
                raise NoPartitionError(self._why_none(origin))
            self._reported.record(node_id, node.partition_id)
            return node.partition_id

    def held_by(self, node_id: int, *, online: bool) -> int | None:
        """Return the partition that a node holds; None if it holds none, or that is unknown.

        Args:
            node_id: The node.
            online: Whether it is online. Of nodes that are offline, only those that are expected back hold one.
        """
        with self._lock:
            node = self._nodes.get(node_id)
        if node is not None:
            return node.partition_id
        return self._reported.of(node_id) if online else None

    def remove(self, node_id: int) -> None:
        """Forget a node that is no longer admitted; its partition is free at once.

        Raises:
            OSError: A file cannot be read or written; a later call of `update` tries again.
        """
        with self._lock:
            node = self._nodes.pop(node_id, None)
            if node is not None:
                node.release()
                self._update()

    def gone(self, node_id: int, *, ended: bool) -> None:
        """Note that a node went offline: it `ended` in order, or it was lost."""
        with self._lock:
            node = self._nodes.get(node_id)
            if node is not None and node.gone_since is None:
                node.gone_since, node.ended = self._now(), ended

    def update(self) -> None:
        """Look at the fleet's size, and forget the nodes that have been gone for long enough.

        Raises:
            OSError: A file cannot be read or written; a later call tries again.
        """
        with self._lock:
            self._update()

    def close(self) -> None:
        """End the thread of `keep_updating`."""
        self._closed.set()

    def keep_updating(self) -> None:
        """Call `update` every second, in a thread, until `close`."""

        def keep_on() -> None:
            logged = ""
            while not self._closed.wait(UPDATE_SECONDS):
                try:
                    self.update()
                    logged = ""
                except OSError as error:
                    if str(error) != logged:
                        sys.stderr.write(f"bouquet: the fleet's size cannot be read or written: {error}\n")
                    logged = str(error)

        threading.Thread(target=keep_on, name="partition-map", daemon=True).start()

    def _update(self) -> None:
        now = self._now()
        for node_id, node in list(self._nodes.items()):
            if not node.counts(now):
                node.release()
                del self._nodes[node_id]
        joined = sum(node.joined for node in self._nodes.values())
        slots = {node.slot for node in self._nodes.values() if node.slot is not None}
        size = read_size(self._size_file) if self._size_file else self._slots.update(slots, now)
        total = None if size is None else size + joined
        if (total, joined) != self._written:
            if self._size_file is not None and self._size_file.parent.is_dir():
                write_joined(self._size_file, joined)
            if total is not None:
                write_size(self._run_dir / SIZE, total)
            self._written = (total, joined)
        self._total = total

    def _may_keep(self, node: _Node, origin: Origin) -> bool:
        """Return whether a node keeps its partition, which was assigned to it and so has no other holder."""
        if node.partition_id is None or (self._total is not None and node.partition_id >= self._total):
            return False
        if origin.pinned:
            return node.partition_id == origin.partition_id
        return self._leases is None or not is_claimed(self._leases, node.partition_id)

    def _assign(self, node_id: int, node: _Node, origin: Origin) -> None:
        """Assign a free partition to a node: the one that it held last, the number of its slot, or any.

        The other nodes take the lowest partitions, so a joined node takes the highest. A node whose partition no longer
        exists keeps it until another one is free.
        """
        held = self._held(node_id)
        total = len(self._nodes) + len(held) if self._total is None else self._total
        if origin.pinned and origin.partition_id is not None:
            wanted = [origin.partition_id]
        else:
            preferred = [number for number in (origin.partition_id, node.slot) if number is not None]
            order = range(total - 1, -1, -1) if node.joined else range(total)
            wanted = [number for number in (*preferred, *order) if number < total]
        for partition_id in wanted:
            if partition_id in held or not self._lease(node_id, node, partition_id, origin.pinned):
                continue
            node.partition_id = partition_id
            return

    def _lease(self, node_id: int, node: _Node, partition_id: int, pinned: bool) -> bool:
        """Take the lease on a partition for a node, in place of its old one; return whether no other node holds it."""
        if (leases := self._leases) is None:
            return True
        holder = f"another machine (node {node_id})"
        if pinned and node.claim is None:
            node.claim = try_claim(leases, partition_id, holder)
        if node.claim is None and is_claimed(leases, partition_id):
            return False
        lease = try_lease(leases, partition_id, holder)
        if lease is None:
            return False
        if node.lease is not None:
            node.lease.release()
        node.lease = lease
        return True

    def _held(self, node_id: int) -> set[int]:
        """Return the partitions that are not free for a node, as far as leases do not tell."""
        held = {node.partition_id for other, node in self._nodes.items() if other != node_id}
        own = self._nodes[node_id].slot
        return {number for number in held | self._slots.awaited - {own} if number is not None}

    def _why_none(self, origin: Origin) -> str:
        if origin.pinned:
            return f"partition-id {origin.partition_id} (from PARTITION_ID) is held by another SuperNode"
        return f"all {self._total} partitions are held; one becomes free when a SuperNode ends"

    @property
    def _leases(self) -> Path | None:
        return self._size_file.parent if self._size_file is not None and self._size_file.parent.is_dir() else None


class _SlotCount:
    """How many slots a cluster has.

    The engine does not tell. A node shows that its slot exists. Slots are counted, because they may have gaps: Swarm
    scales a service down by ending tasks on its fullest hosts, whatever their slots, and up by filling the gaps. The
    slots of a cluster that was just started are expected until as many were there, at most for `LOST_SECONDS`. If one
    appears behind them, those below it are expected for `ENDED_SECONDS`: a cluster grows in any order.
    """

    def __init__(self, file: Path, expected: int | None, now: float) -> None:
        self._file = file
        self._configured = expected
        self._expected = self._read() or expected or 0
        self._until = now + LOST_SECONDS
        self._slots: set[int] = set()
        self._count: int | None = None

    @property
    def awaited(self) -> set[int]:
        """The slots that are expected, and whose nodes have not called yet."""
        return set(range(self._expected)) - self._slots

    def update(self, slots: set[int], now: float) -> int | None:
        """Return the number of slots; None if it is unknown.

        Args:
            slots: The slots of the nodes that count now.
            now: The time.
        """
        new, self._slots = slots - self._slots, set(slots)
        if not self._expected and new and max(new) >= len(slots):
            self._expected, self._until = max(new) + 1, now + ENDED_SECONDS
        if len(slots) >= self._expected or now >= self._until:
            self._expected = 0
        count = max(self._expected, len(slots)) or None
        if count != self._count and count is not None:
            content = {"configured": self._configured, "slots": count}
            write_atomically(self._file, json.dumps(content).encode("ascii"))
        self._count = count
        return count

    def _read(self) -> int | None:
        """Return the number that an earlier container has written, unless another one was configured since."""
        try:
            content = json.loads(self._file.read_text(encoding="ascii"))
            return int(content["slots"]) if content["configured"] == self._configured else None
        except (OSError, ValueError, LookupError, TypeError):
            return None
