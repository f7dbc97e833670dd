"""Which node holds which partition: in a cluster, on one machine with nodes that have joined, and while both change."""

import json
import random
import threading
from pathlib import Path

import pytest

from bouquet.contract.fleet_size import read_partitions, read_size, write_size
from bouquet.contract.leases import Lease, holders, is_claimed, try_claim, try_lease
from bouquet.contract.partitions import read_partition_ids
from bouquet.polling import poll_until
from bouquet.superlink import partition_map
from bouquet.superlink.partition_map import (
    ENDED_SECONDS,
    JOINED_LOST_SECONDS,
    LOST_SECONDS,
    SILENT_SECONDS,
    NoPartitionError,
    Origin,
    PartitionMap,
)

JOINED = Origin(joined=True)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Cluster:
    """The map of a cluster, whose node ids are 100 + slot, and its joined nodes' ids."""

    def __init__(self, folder: Path, expected: int | None = None) -> None:
        self.folder, self.expected, self.clock = folder, expected, Clock()
        self.restart()

    def restart(self) -> None:
        """Replace the SuperLink's container: only the state folder stays."""
        run_dir = self.folder / f"run-{random.random()}"
        run_dir.mkdir()
        self.run_dir = run_dir
        self.map = PartitionMap(run_dir, self.folder, expected=self.expected, now=self.clock)

    def call(self, *slots: int) -> list[int | None]:
        """The partitions that the nodes of these slots are told."""
        return [self.map.admit(100 + slot, Origin(slot=slot)) for slot in slots]

    def end(self, *slots: int) -> None:
        for slot in slots:
            self.map.gone(100 + slot, ended=True)

    def size_after(self, seconds: float, *calling: int) -> int | None:
        """The size that runs see after some time, while the nodes of these slots call."""
        until = self.clock.time + seconds
        while self.clock.time < until:
            self.clock.time = min(until, self.clock.time + SILENT_SECONDS / 2)
            self.call(*calling)
        self.map.update()
        return read_size(self.run_dir / "size")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


class Machine:
    """One machine's fleet with the leases of its nodes, and the SuperLink's map."""

    def __init__(self, folder: Path, size: int) -> None:
        self.leases, self.clock = folder / "leases", Clock()
        self.size_file = self.leases / "size"
        write_size(self.size_file, size)
        self.map = PartitionMap(folder, folder, self.size_file, now=self.clock)
        self.local: dict[int, Lease] = {}

    def resize(self, size: int) -> None:
        write_size(self.size_file, size)
        self.map.update()

    def acquire(self) -> int:
        """Start a node, which acquires the lowest free partition, as `lease_partition` does."""
        for partition_id in range(read_partitions(self.size_file) or 0):
            if not is_claimed(self.leases, partition_id) and (lease := try_lease(self.leases, partition_id, "local")):
                self.local[partition_id] = lease
                return partition_id
        raise AssertionError("no partition is free")

    def settle(self, size: int, joined: dict[int, int | None]) -> None:
        """Have all joined nodes call, and the nodes of the machine look at the size and at free partitions."""
        for node_id, partition_id in joined.items():
            joined[node_id] = self.map.admit(node_id, Origin(partition_id, joined=True))
        self.map.update()
        partitions = read_partitions(self.size_file) or 0
        for partition_id in [number for number in self.local if number >= partitions]:
            self.release(partition_id)
        while len(self.local) < size:
            self.acquire()

    def release(self, partition_id: int) -> None:
        """End the node that holds a partition."""
        self.local.pop(partition_id).release()


def test_a_slot_gets_the_partition_with_its_number(cluster: Cluster) -> None:
    assert cluster.call(2, 0, 1) == [2, 0, 1]
    assert cluster.map.num_partitions == 3
    assert read_partition_ids(cluster.run_dir) == {100: 0, 101: 1, 102: 2}


def test_a_cluster_that_was_just_started_has_the_expected_size(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, expected=9)
    assert read_size(cluster.run_dir / "size") == 9
    cluster.call(3)
    assert cluster.map.num_partitions == 9


def test_expected_slots_that_never_come_are_given_up(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, expected=9)
    assert cluster.size_after(LOST_SECONDS - 1, 0, 1) == 9
    assert cluster.size_after(2, 0, 1) == 2


def test_new_slots_make_the_fleet_larger_at_once(cluster: Cluster) -> None:
    cluster.call(0, 1)
    cluster.call(2, 3)
    assert read_size(cluster.run_dir / "size") == 4


def test_slots_that_end_in_order_make_the_fleet_smaller_after_a_while(cluster: Cluster) -> None:
    cluster.call(0, 1, 2, 3)
    cluster.end(2, 3)
    assert cluster.size_after(ENDED_SECONDS - 1, 0, 1) == 4
    assert cluster.size_after(2, 0, 1) == 2


def test_slots_with_gaps_have_partitions_without(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 9)
    cluster.call(*range(9))
    assert cluster.call(11, 10, 9) == [11, 10, 9]
    left = (0, 1, 3, 4, 9, 10)  # Swarm ends tasks on its fullest hosts, whatever their slots
    cluster.end(2, 5, 6, 7, 8, 11)
    assert cluster.size_after(ENDED_SECONDS + 1, *left) == len(left)
    before = cluster.call(*left)
    assert sorted(number for number in before if number is not None) == list(range(6))
    cluster.restart()
    for slot, partition_id in zip(left, before, strict=True):
        try:
            cluster.map.admit(100 + slot, Origin(partition_id, slot))
        except NoPartitionError:  # it calls again
            continue
    reported = [Origin(partition_id, slot) for slot, partition_id in zip(left, before, strict=True)]
    assert [cluster.map.admit(100 + slot, origin) for slot, origin in zip(left, reported, strict=True)] == before
    grown = cluster.call(*left, 2, 5, 6)
    assert sorted(number for number in grown if number is not None) == list(range(9))


def test_a_rolling_update_leaves_the_size_alone(cluster: Cluster) -> None:
    cluster.call(0, 1, 2)
    for slot in (2, 1, 0):
        cluster.end(slot)
        assert cluster.size_after(ENDED_SECONDS / 2, *{0, 1, 2} - {slot}) == 3
        assert cluster.call(slot) == [slot]


def test_the_nodes_of_a_machine_that_died_count_until_the_engine_has_replaced_them(cluster: Cluster) -> None:
    cluster.call(0, 1, 2)
    cluster.map.gone(102, ended=False)
    assert cluster.size_after(LOST_SECONDS - 1, 0, 1) == 3
    assert cluster.call(2) == [2]
    assert cluster.size_after(LOST_SECONDS + SILENT_SECONDS + 1, 0, 1) == 2  # silent, without a lost connection


def test_a_new_superlink_knows_the_size_of_the_cluster(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, expected=3)
    cluster.call(0, 1, 2, 3, 4)
    cluster.restart()
    assert read_size(cluster.run_dir / "size") == 5
    cluster.expected = 8  # the configured number has changed
    cluster.restart()
    assert read_size(cluster.run_dir / "size") == 8


def test_a_joined_node_gets_a_partition_behind_the_slots_and_keeps_it_while_the_cluster_grows(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, expected=3)
    assert cluster.map.admit(1, JOINED) == 3
    assert cluster.call(0, 1, 2) == [0, 1, 2]
    assert cluster.call(3, 4) == [4, 5]  # 3 when there were four partitions, then five
    assert cluster.map.admit(1, JOINED) == 3
    assert cluster.map.num_partitions == 6


def test_a_joined_node_moves_when_the_cluster_becomes_so_small_that_its_partition_is_gone(cluster: Cluster) -> None:
    cluster.call(0, 1, 2, 3)
    assert cluster.map.admit(1, JOINED) == 4
    cluster.end(2, 3)
    for _ in range(3):
        cluster.clock.time += ENDED_SECONDS / 2
        cluster.call(0, 1)
        cluster.map.admit(1, JOINED)
    cluster.map.update()
    assert cluster.map.admit(1, JOINED) == 2
    assert cluster.map.num_partitions == 3


def test_a_joined_node_that_ends_makes_the_fleet_smaller(cluster: Cluster) -> None:
    cluster.call(0, 1)
    assert [cluster.map.admit(node_id, JOINED) for node_id in (1, 2)] == [2, 3]
    cluster.map.gone(1, ended=True)
    for _ in range(3):
        cluster.clock.time += ENDED_SECONDS / 2
        cluster.call(0, 1)
        cluster.map.admit(2, JOINED)
    cluster.map.update()
    assert cluster.map.num_partitions == 3
    assert cluster.map.admit(2, JOINED) == 2


def test_a_joined_node_that_is_lost_is_not_waited_for_long(cluster: Cluster) -> None:
    cluster.call(0)
    cluster.map.admit(1, JOINED)
    cluster.map.gone(1, ended=False)
    assert cluster.size_after(JOINED_LOST_SECONDS - 1, 0) == 2
    assert cluster.size_after(2, 0) == 1


def test_a_joined_node_that_is_removed_frees_its_partition_at_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2)
    assert [machine.map.admit(node_id, JOINED) for node_id in (1, 2)] == [2, 3]
    assert (machine.map.held_by(2, online=True), machine.map.held_by(9, online=True)) == (3, None)
    machine.map.remove(2)
    assert machine.map.num_partitions == 3
    assert read_partitions(machine.size_file) == 3
    assert try_lease(machine.leases, 3, "another") is not None
    assert machine.map.held_by(2, online=False) is None


def test_of_a_node_of_this_machine_the_partition_is_known_while_it_is_online(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2)
    machine.map.admit(1, Origin(partition_id=1))
    assert (machine.map.held_by(1, online=True), machine.map.held_by(1, online=False)) == (1, None)


def test_a_pinned_node_waits_until_its_partition_is_free(cluster: Cluster) -> None:
    pinned = Origin(partition_id=1, joined=True, pinned=True)
    cluster.call(0, 1)
    with pytest.raises(NoPartitionError, match="partition-id 1 .from PARTITION_ID. is held by another SuperNode"):
        cluster.map.admit(1, pinned)


def test_a_node_that_reconnects_to_a_new_superlink_keeps_what_it_held(cluster: Cluster) -> None:
    cluster.call(0, 1)
    cluster.restart()
    assert cluster.map.admit(1, Origin(partition_id=2, joined=True)) == 2
    assert cluster.call(1, 0) == [1, 0]


def test_a_fleet_without_slots_and_without_a_size_has_no_size(tmp_path: Path) -> None:
    plain = PartitionMap(tmp_path, tmp_path)
    assert plain.admit(1, Origin(partition_id=4)) is None
    assert plain.num_partitions is None
    assert not (tmp_path / "size").exists()
    assert read_partition_ids(tmp_path) == {1: 4}


def test_nodes_of_a_machine_take_none_of_the_partitions_of_joined_nodes(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2)
    assert [machine.acquire() for _ in range(2)] == [0, 1]
    assert [machine.map.admit(node_id, JOINED) for node_id in (1, 2)] == [2, 3]
    machine.resize(4)
    assert read_size(tmp_path / "size") == 6
    assert [machine.acquire() for _ in range(2)] == [4, 5]
    assert [machine.map.admit(node_id, JOINED) for node_id in (1, 2)] == [2, 3]


def test_a_joined_node_moves_only_to_a_partition_that_no_node_of_the_machine_holds(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 4)
    for _ in range(4):
        machine.acquire()
    assert machine.map.admit(1, JOINED) == 4
    machine.resize(2)
    assert machine.map.admit(1, JOINED) == 4  # 0 to 2 are still held
    machine.release(1)
    assert machine.map.admit(1, JOINED) == 1
    machine.release(3)
    machine.release(2)
    assert machine.acquire() == 2
    assert sorted(holders(machine.leases)) == [0, 1, 2]


def test_a_joined_node_makes_way_for_a_node_that_is_pinned_to_its_partition(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 1)
    machine.acquire()
    assert machine.map.admit(1, JOINED) == 1
    machine.resize(2)
    assert try_claim(machine.leases, 1, "local") is not None
    assert machine.map.admit(1, JOINED) == 2
    assert try_lease(machine.leases, 1, "local") is not None


def test_a_joined_node_that_is_pinned_makes_a_node_of_the_machine_leave(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2)
    machine.acquire(), machine.acquire()
    pinned = Origin(partition_id=1, joined=True, pinned=True)
    with pytest.raises(NoPartitionError):
        machine.map.admit(1, pinned)
    assert is_claimed(machine.leases, 1)  # so that the node of the machine gives it up
    machine.release(1)
    assert machine.acquire() == 2
    assert machine.map.admit(1, pinned) == 1


def test_the_size_is_told_to_the_nodes_of_the_machine_and_to_runs(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2)
    machine.map.admit(1, JOINED)
    assert read_partitions(machine.size_file) == read_size(tmp_path / "size") == 3
    machine.map.gone(1, ended=True)
    machine.clock.time += ENDED_SECONDS
    machine.map.update()
    assert read_partitions(machine.size_file) == read_size(tmp_path / "size") == 2


@pytest.mark.parametrize("seed", range(5))
def test_random_changes_never_give_a_partition_two_holders_and_leave_no_hole(tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    machine = Machine(tmp_path, 3)
    for _ in range(3):
        machine.acquire()
    joined: dict[int, int | None] = {}
    size = 3
    for step in range(60):
        what = random_.choice(("grow", "shrink", "join", "leave", "restart"))
        if what == "grow" and size < 12:
            size += random_.randint(1, 3)
            machine.resize(size)
        elif what == "shrink" and size > 1:
            size -= random_.randint(1, min(3, size - 1))
            machine.resize(size)
            for partition_id in random_.sample(sorted(machine.local), len(machine.local) - size):
                machine.release(partition_id)
        elif what == "join" and len(joined) < 3:
            joined[1000 + step] = None
        elif what == "leave" and joined:
            node_id = random_.choice(list(joined))
            machine.map.gone(node_id, ended=True)
            del joined[node_id]
            machine.clock.time += ENDED_SECONDS
            for other in joined:
                machine.map.admit(other, JOINED)
            machine.map.update()
        elif what == "restart" and machine.local:
            machine.release(random_.choice(list(machine.local)))
        for _ in range(3):  # as calls and polls go on
            machine.settle(size, joined)
            held = [*machine.local, *joined.values()]
            assert len(held) == len(set(held)), (step, what, held)
        assert sorted(number for number in held if number is not None) == list(range(size + len(joined))), (step, what)


def test_the_number_of_slots_survives_a_file_that_is_broken(tmp_path: Path) -> None:
    (tmp_path / "slots.json").write_text("{")
    assert Cluster(tmp_path, expected=3).map.num_partitions == 3
    assert json.loads((tmp_path / "slots.json").read_text()) == {"configured": 3, "slots": 3}


def test_the_thread_that_looks_at_the_size_ends_with_the_superlink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_map, "UPDATE_SECONDS", 0.01)
    machine = Machine(tmp_path, 2)
    machine.map.keep_updating()
    write_size(machine.size_file, 5)
    assert poll_until(lambda: machine.map.num_partitions == 5, 10, 0.01)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "partition-map"]
    machine.map.close()
    thread.join(10)
    assert not thread.is_alive()
