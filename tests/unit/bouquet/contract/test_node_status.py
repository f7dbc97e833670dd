"""A SuperNode's file: says what it is and does, and is whole whenever it is read."""

import os
import socket
import time
from pathlib import Path

from bouquet.contract.node_status import NodeStatus, NodeStatusFile, read, read_all

NODE_ID = 2**64 - 3


def test_a_node_says_who_and_where_it_is_before_it_knows_the_superlink(tmp_path: Path) -> None:
    NodeStatusFile(tmp_path / "nodes", 3, "CPU")
    assert read_all(tmp_path / "nodes") == [NodeStatus(3, socket.gethostname(), os.getpid(), "CPU")]


def test_ids_of_64_bits_come_back_as_they_are(tmp_path: Path) -> None:
    file = NodeStatusFile(tmp_path, 0, "CPU")
    file.online(NODE_ID)
    file.works_on(2**63 + 1)
    [report] = read_all(tmp_path)
    assert (report.node_id, report.run_id, report.online) == (NODE_ID, 2**63 + 1, True)
    assert report.heartbeat is not None
    assert abs(time.time() - report.heartbeat) < 60


def test_an_offline_node_keeps_the_time_of_its_last_heartbeat(tmp_path: Path) -> None:
    file = NodeStatusFile(tmp_path, 0, "CPU")
    file.online(NODE_ID)
    [before] = read_all(tmp_path)
    file.offline()
    [after] = read_all(tmp_path)
    assert (after.online, after.heartbeat, after.node_id) == (False, before.heartbeat, NODE_ID)


def test_nothing_is_claimed_of_heartbeats_that_nobody_watches(tmp_path: Path) -> None:
    NodeStatusFile(tmp_path, 0, "CPU").registered(NODE_ID)
    [report] = read_all(tmp_path)
    assert (report.node_id, report.online, report.heartbeat) == (NODE_ID, True, None)


def test_work_that_is_done_is_no_longer_told(tmp_path: Path) -> None:
    file = NodeStatusFile(tmp_path, 0, "CPU")
    file.works_on(7)
    file.works_on(None)
    assert read_all(tmp_path)[0].run_id is None


def test_reports_come_in_the_order_of_partitions_and_a_broken_one_is_left_out(tmp_path: Path) -> None:
    for partition_id in (10, 2, 0):
        NodeStatusFile(tmp_path, partition_id, "CPU")
    (tmp_path / "partition-1.json").write_text('{"partition')
    assert [report.partition_id for report in read_all(tmp_path)] == [0, 2, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "partition-0.json",
        "partition-1.json",
        "partition-10.json",
        "partition-2.json",
    ]


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("a file in the folder's place")
    NodeStatusFile(tmp_path / "nodes", 0, "CPU").online(NODE_ID)
    assert read(tmp_path / "nodes" / "partition-0.json") is None
