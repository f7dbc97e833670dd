"""A SuperNode's status file: always complete when it is read, and never a reason for the node to fail."""

import os
import socket
import time
from pathlib import Path

from bouquet.contract.node_status import NodeStatus, NodeStatusFile, read, read_all

NODE_ID = 2**64 - 3


def test_a_node_writes_its_partition_and_host_before_it_reaches_the_superlink(tmp_path: Path) -> None:
    NodeStatusFile(tmp_path / "nodes", 3, "CPU")
    assert read_all(tmp_path / "nodes") == [NodeStatus(3, socket.gethostname(), os.getpid(), "CPU")]


def test_ids_of_64_bits_come_back_as_they_are(tmp_path: Path) -> None:
    file = NodeStatusFile(tmp_path, 0, "CPU")
    file.set_online(NODE_ID)
    file.set_run(2**63 + 1)
    [status] = read_all(tmp_path)
    assert (status.node_id, status.run_id, status.online) == (NODE_ID, 2**63 + 1, True)
    assert status.heartbeat is not None
    assert abs(time.time() - status.heartbeat) < 60


def test_an_offline_node_keeps_the_time_of_its_last_heartbeat(tmp_path: Path) -> None:
    file = NodeStatusFile(tmp_path, 0, "CPU")
    file.set_online(NODE_ID)
    [before] = read_all(tmp_path)
    file.set_offline()
    [after] = read_all(tmp_path)
    assert (after.online, after.heartbeat, after.node_id) == (False, before.heartbeat, NODE_ID)


def test_a_registered_node_without_observed_heartbeats_has_no_heartbeat_time(tmp_path: Path) -> None:
    NodeStatusFile(tmp_path, 0, "CPU").set_registered(NODE_ID)
    [status] = read_all(tmp_path)
    assert (status.node_id, status.online, status.heartbeat) == (NODE_ID, True, None)


def test_an_idle_node_has_no_run(tmp_path: Path) -> None:
    file = NodeStatusFile(tmp_path, 0, "CPU")
    file.set_run(7)
    file.set_run(None)
    assert read_all(tmp_path)[0].run_id is None


def test_statuses_come_in_the_order_of_partitions_and_a_broken_one_is_left_out(tmp_path: Path) -> None:
    for partition_id in (10, 2, 0):
        NodeStatusFile(tmp_path, partition_id, "CPU")
    (tmp_path / "partition-1.json").write_text('{"partition')
    assert [status.partition_id for status in read_all(tmp_path)] == [0, 2, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "partition-0.json",
        "partition-1.json",
        "partition-10.json",
        "partition-2.json",
    ]


def test_a_folder_that_cannot_be_written_to_does_not_make_the_node_fail(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("a file instead of the folder")
    NodeStatusFile(tmp_path / "nodes", 0, "CPU").set_online(NODE_ID)
    assert read(tmp_path / "nodes" / "partition-0.json") is None
