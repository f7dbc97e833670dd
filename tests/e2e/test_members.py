"""What the fleet does for an app with plain FedAvg: waiting for nodes, members of a run, failures with their names."""

import fcntl
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import APPS, CONNECTION, FLWR, Bouquet, StartFleet, printed_json, run_id, wait_until

LATE_SECONDS = 20.0
NOTICED_SECONDS = 60.0
"""Within this time the SuperLink counts a killed node as offline, on a busy machine."""


class Nodes:
    """The SuperNodes of a fleet of processes. A killed one stays away: another process holds its partition."""

    def __init__(self, fleet: Bouquet) -> None:
        self._fleet = fleet
        self._home = fleet.environment["BOUQUET_HOME"]
        self._leases: list[int] = []

    def kill(self, *partition_ids: int) -> None:
        """Kill nodes, take their partitions, and wait until the SuperLink counts the nodes as offline."""
        wanted = self._count_offline() + len(partition_ids)
        pids = self._fleet.serving()
        for partition_id in partition_ids:
            lease = os.open(Path(self._home) / "processes" / "leases" / f"partition-{partition_id}", os.O_RDWR)
            self._leases.append(lease)
            os.kill(pids[partition_id], signal.SIGKILL)
            fcntl.flock(lease, fcntl.LOCK_EX)
        wait_until(lambda: self._count_offline() >= wanted, "the nodes count as offline", NOTICED_SECONDS)

    def let_back(self) -> None:
        """Give the partitions back: the supervisor has started the nodes again, and they wait."""
        while self._leases:
            os.close(self._leases.pop())

    def restore(self) -> None:
        """Wait until all nodes are back."""
        self.let_back()
        assert self._fleet("up").returncode == 0

    def _count_offline(self) -> int:
        return self._fleet.process_log("superlink").count("is offline: its connection was lost")


@pytest.fixture(scope="module")
def ten(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bouquet, Nodes]]:
    """A fleet of ten nodes as processes."""
    folder = tmp_path_factory.mktemp("ten")
    with start_fleet("processes", folder, SUPERNODES="10", EXECUTOR_PRELOAD="numpy") as fleet:
        nodes = Nodes(fleet)
        try:
            yield fleet, nodes
        finally:
            nodes.let_back()


def follow(fleet: Bouquet, on_line: Callable[[str], None], **run_config: Any) -> str:
    """Run plain FedAvg, call `on_line` with each line of its log, and return the log. The run must complete."""
    config = " ".join(f"{key.replace('_', '-')}={value}" for key, value in run_config.items())
    command = [str(FLWR), "run", str(APPS / "plain_fedavg"), CONNECTION, "--stream", "--run-config", config]
    output = ""
    with subprocess.Popen(
        command, env=fleet.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        for line in run.stdout or ():
            output += line
            on_line(line)
    print(output)
    assert fleet.runs()[run_id(output)]["status"] == "finished:completed"
    return output


def mean_of_partitions(partition_ids: set[int]) -> float:
    """What one round of plain FedAvg adds to each weight."""
    return sum(k * (k + 1) for k in partition_ids) / sum(k + 1 for k in partition_ids)


def test_nodes_that_start_20_s_late_are_sampled_in_round_1(ten: tuple[Bouquet, Nodes]) -> None:
    fleet, nodes = ten
    nodes.kill(5, 6, 7, 8, 9)
    start = time.monotonic()
    threading.Timer(LATE_SECONDS, nodes.let_back).start()
    output = follow(fleet, lambda line: None, num_server_rounds=1)
    assert time.monotonic() - start > LATE_SECONDS
    assert "Waiting for the fleet: 5 of 10 SuperNodes are online" in output
    assert "configure_train: Sampled 10 nodes (out of 10)" in output
    (report,) = printed_json("plain_fedavg", output)
    assert report["weights"] == [pytest.approx([mean_of_partitions(set(range(10)))] * 4)]


def test_two_of_ten_nodes_that_are_killed_between_sampling_and_sending_are_named_and_the_run_completes(
    ten: tuple[Bouquet, Nodes],
) -> None:
    fleet, nodes = ten
    nodes.restore()
    killed = 0.0

    def kill_two(line: str) -> None:
        nonlocal killed
        if '{"sampled": 10}' in line:
            nodes.kill(3, 7)
            killed = time.monotonic()

    output = follow(fleet, kill_two, num_server_rounds=2, pause_seconds=30.0)
    assert time.monotonic() - killed < 60  # nothing waited for the two until a deadline
    for partition_id in (3, 7):
        assert re.search(rf"Received error in reply from node \d+: partition-id {partition_id}: ", output)
        assert re.search(rf"SuperNode \d+ \(partition-id {partition_id}\) left; \d of 10 remain online", output)
    assert "aggregate_train: Received 8 results and 2 failures" in output
    assert "Sampled 8 nodes (out of 8)" in output
    report = printed_json("plain_fedavg", output)[-1]
    assert report["weights"] == [pytest.approx([2 * mean_of_partitions(set(range(10)) - {3, 7})] * 4)]


def test_a_node_that_is_killed_while_it_trains_is_a_failure_with_its_partition(ten: tuple[Bouquet, Nodes]) -> None:
    fleet, nodes = ten
    nodes.restore()

    def kill_one(line: str) -> None:
        if "configure_train: Sampled 10 nodes" in line:
            threading.Timer(3, nodes.kill, (1,)).start()

    output = follow(fleet, kill_one, num_server_rounds=1, train_seconds=15.0)
    assert re.search(r"Received error in reply from node \d+: partition-id 1: ", output)
    (report,) = printed_json("plain_fedavg", output)
    assert report["weights"] == [pytest.approx([mean_of_partitions(set(range(10)) - {1})] * 4)]


def test_every_node_of_a_run_sees_the_same_partitions_while_the_fleet_grows_and_shrinks(
    start_fleet: StartFleet, tmp_path: Path
) -> None:
    settings = {"SUPERNODES": "5", "FLEET_DEADLINE": "30", "EXECUTOR_PRELOAD": "numpy"}
    with start_fleet("processes", tmp_path, **settings) as fleet:
        output = ""

        def resize(line: str) -> None:
            nonlocal output
            output += line
            if "[ROUND 1/40]" in line:
                assert fleet("up", SUPERNODES="7").returncode == 0
            elif output.count("so it takes part from the next run on") == 2 and "the next run on" in line:
                assert fleet("up", SUPERNODES="3").returncode == 0

        follow(fleet, resize, num_server_rounds=40, train_seconds=1.0)
        for partition_id in (5, 6):
            why = "this run has partitions 0 to 4, so it takes part from the next run on"
            assert re.search(rf"SuperNode \d+ \(partition-id {partition_id}\) joined; {why}", output)
        for partition_id in (3, 4):
            assert re.search(rf"SuperNode \d+ \(partition-id {partition_id}\) left; \d of 5 remain online", output)
        (report,) = printed_json("plain_fedavg", output)
        assert len(report["evaluate"]) == 40
        assert {metrics["num-partitions"] for metrics in report["evaluate"].values()} == {5}
        assert "Sampled 3 nodes (out of 3)" in output
        assert not re.search(r"Sampled [67] nodes", output)

        second = fleet.submit("plain_fedavg", "--stream", num_server_rounds=1)
        (report,) = printed_json("plain_fedavg", second)
        assert report["evaluate"]["1"]["num-partitions"] == 3

        nodes = Nodes(fleet)
        nodes.kill(1)
        try:
            third = fleet.submit("plain_fedavg", "--stream")
        finally:
            nodes.let_back()
        assert fleet.runs()[run_id(third)]["status"] == "finished:failed"
        reason = "FLEET_DEADLINE=30: only 2 of 3 SuperNodes joined within that many seconds (missing: partition-id 1); "
        assert reason in third
