"""A fleet that grows, shrinks and is disturbed: every partition-id once, and a run that is under way finishes."""

import json
import os
import random
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import (
    APPS,
    CONNECTION,
    FLWR,
    PROJECT,
    Bouquet,
    StartFleet,
    another_network,
    gateway,
    run_id,
    start_elsewhere,
    wait_until,
)

STEPS = 30
MAX_SUPERNODES = 20
SEED = "BOUQUET_SOAK_SEED"
# Twenty nodes that start at the same time on two busy cores.
SETTLED_SECONDS = 300
ROUNDS, TRAIN_SECONDS = 30, 3.0  # together longer than four nodes take to start, and seven to stop


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 or not check, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout


def scale(fleet: Bouquet, supernodes: int, *options: str) -> None:
    """The one number: `SUPERNODES=... docker compose up -d`."""
    environment = fleet.environment | {"SUPERNODES": str(supernodes)}
    done = subprocess.run(
        ["docker", "compose", "up", "-d", *options], cwd=PROJECT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def names(fleet: Bouquet, *, running: bool | None = None) -> list[str]:
    project = fleet.project
    listed = docker(
        "ps",
        "--all",
        *("--filter", f"label=com.docker.compose.project={project}"),
        *("--filter", "label=com.docker.compose.service=supernode"),
        *("--filter", "label=com.docker.compose.container-number"),  # not those that only have the image's labels
        *("--format", "{{.Names}} {{.State}}"),
    )
    rows = [line.split() for line in listed.splitlines()]
    return sorted(name for name, state in rows if running is None or (state == "running") == running)


def starts(fleet: Bouquet) -> dict[str, str]:
    """When each container was made and last started, by name."""
    told = docker("inspect", "--format", "{{.Name}} {{.Created}} {{.State.StartedAt}}", *names(fleet))
    return dict(line.split(" ", 1) for line in told.splitlines())


def partition_ids(fleet: Bouquet) -> list[int]:
    """The partition-ids that SuperNodes serve with, from their command lines, as the host sees them."""
    found = []
    for name in names(fleet, running=True):
        for line in docker("top", name, "-eo", "pid,args", check=False).splitlines():
            if match := re.search(r" bouquet\.node\.serve_supernode .*partition-id=(\d+)", line):
                found.append((name, int(match[1])))
    by_container = dict(found)  # in a container there is an init, and with some of them it shows the same words
    return sorted(by_container.values())


def joined_partitions(fleet: Bouquet) -> dict[str, int]:
    """The partition-ids of the nodes that have joined from elsewhere and are online, as the SuperLink tells them."""
    nodes = fleet.nodes().items()
    return {
        name: int(node["partition-id"])
        for name, node in nodes
        if (node["site"], node["status"]) == ("elsewhere", "online") and node["partition-id"] != "-"
    }


def doubled(fleet: Bouquet) -> list[int]:
    """The partition-ids that two nodes hold."""
    held = [*partition_ids(fleet), *joined_partitions(fleet).values()]
    return sorted({number for number in held if held.count(number) > 1})


class Soak:
    """Random steps on the SuperNodes of a fleet, and on the containers of nodes that have joined."""

    def __init__(self, fleet: Bouquet, seed: int, joined: list[str]) -> None:
        self.fleet = fleet
        self._joined = joined
        self.size = int(fleet.environment["SUPERNODES"])
        self._random = random.Random(seed)

    def step(self) -> str:
        steps: list[Callable[[], str]] = [self.scale, self.restart_joined]
        if names(self.fleet):
            steps.append(self.remove)
        if names(self.fleet, running=True):
            steps += [self.kill, self.stop, self.reconnect]
        if names(self.fleet, running=False):
            steps.append(self.start)
        return self._random.choice(steps)()

    def _one(self, running: bool | None) -> str:
        return self._random.choice(names(self.fleet, running=running))

    def kill(self) -> str:
        name = self._one(running=True)
        docker("kill", name, check=False)  # it may be starting over at this moment
        return f"kill {name}"

    def stop(self) -> str:
        name = self._one(running=True)
        docker("stop", "--time", "5", name)
        return f"stop {name}"

    def start(self) -> str:
        name = self._one(running=False)
        docker("start", name)
        return f"start {name}"

    def remove(self) -> str:
        name = self._one(running=None)
        docker("rm", "--force", name)
        return f"remove {name}"

    def scale(self) -> str:
        self.size = self._random.randint(1, MAX_SUPERNODES)
        scale(self.fleet, self.size)
        return f"scale to {self.size}"

    def restart_joined(self) -> str:
        name = self._random.choice(self._joined)
        docker("restart", "--time", self._random.choice(("0", "5")), name)
        return f"restart {name}"

    def reconnect(self) -> str:
        name = self._one(running=True)
        network = f"{self.fleet.project}_fleet"
        docker("network", "disconnect", "--force", network, name, check=False)

        def connected() -> bool:  # refused while the container starts over, and now and then by an old daemon
            docker("network", "connect", network, name, check=False)
            return network in docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", name)

        wait_until(connected, f"{name} is connected again", 60)
        return f"reconnect {name}"


def test_in_thirty_random_steps_with_two_joined_nodes_no_partition_id_has_two_holders_and_none_is_missing_then(
    docker: None, start_fleet: StartFleet, tmp_path: Path
) -> None:
    seed = int(os.environ.get(SEED) or random.randrange(10**6))
    print(f"{SEED}={seed}")
    # Nothing is preloaded: this is about partitions, and twenty frameworks would take minutes.
    settings = {"SUPERNODES": "4", "FLEET_BIND": "0.0.0.0", "SUPERLINK_NAMES": gateway(), "EXECUTOR_PRELOAD": "flwr"}
    with start_fleet("containers", tmp_path, **settings) as fleet, another_network(f"{fleet.project}-x") as elsewhere:
        joined = fleet("join-command", "--nodes", "2", "--name", "site")
        assert joined.returncode == 0, joined.stderr
        command = joined.stdout.replace("bouquet-site-", f"{elsewhere}-node-")
        start_elsewhere(command, elsewhere, "--env=EXECUTOR_PRELOAD=flwr")
        wait_until(lambda: len(joined_partitions(fleet)) == 2, "two nodes have joined", SETTLED_SECONDS)
        soak = Soak(fleet, seed, [f"{elsewhere}-node-{number}" for number in (1, 2)])
        for number in range(1, STEPS + 1):
            began = time.monotonic()
            print(f"{number:>2}: {soak.step()} ({time.monotonic() - began:.1f} s)", flush=True)
            if twice := doubled(fleet):  # the two lists may be a moment apart
                time.sleep(1)
                still = set(twice) & set(doubled(fleet))
                assert not still, f"{partition_ids(fleet)} and {joined_partitions(fleet)}"
        scale(fleet, soak.size)  # what was stopped or removed comes back by the same command
        wait_until(
            lambda: (
                sorted([*partition_ids(fleet), *joined_partitions(fleet).values()]) == [*range(soak.size + 2)]
                and len(names(fleet)) == soak.size
            ),
            f"partition-ids are 0..{soak.size + 1}, each once",
            SETTLED_SECONDS,
            lambda: f"but {partition_ids(fleet)} and {joined_partitions(fleet)}",
        )
        # The product agrees: all are healthy, that is online, and each holds its partition.
        up = fleet("up", SUPERNODES=str(soak.size))
        assert up.returncode == 0, up.stdout + up.stderr


def test_one_node_more_than_there_are_partitions_says_so_and_takes_over_when_one_leaves(
    docker: None, start_fleet: StartFleet, tmp_path: Path
) -> None:
    with start_fleet("containers", tmp_path, SUPERNODES="1", EXECUTOR_PRELOAD="flwr") as fleet:
        (first,) = names(fleet)
        scale(fleet, 1, "--scale", "supernode=2")
        (spare,) = set(names(fleet)) - {first}
        taken = "SUPERNODES=1: all partition-ids 0..0 are taken; this is one SuperNode too many"
        reason = f"waiting for a free partition: {taken}"
        wait_until(lambda: reason in logs(spare), "the spare node gives the reason", SETTLED_SECONDS)
        assert partition_ids(fleet) == [0]
        subprocess.run(["docker", "rm", "--force", first], check=True, capture_output=True)
        wait_until(lambda: partition_ids(fleet) == [0], "the spare node takes over", SETTLED_SECONDS)
        assert logs(spare).count(reason) == 1


def logs(name: str) -> str:
    done = subprocess.run(["docker", "logs", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


def test_a_run_of_an_app_that_asks_for_ten_nodes_finishes_while_they_become_fourteen_and_then_seven(
    docker: None, start_fleet: StartFleet, tmp_path: Path
) -> None:
    with start_fleet("containers", tmp_path, SUPERNODES="10", EXECUTOR_PRELOAD="numpy") as fleet:
        output = ""
        run_config = f"num-server-rounds={ROUNDS} min-available-nodes=10 train-seconds={TRAIN_SECONDS}"
        command = [str(FLWR), "run", str(APPS / "plain_fedavg"), CONNECTION, "--stream", "--run-config", run_config]
        with subprocess.Popen(
            command, env=fleet.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as run:
            for line in run.stdout or ():
                output += line
                if f"[ROUND 1/{ROUNDS}]" in line:
                    ten = starts(fleet)
                    scale(fleet, 14)
                    assert ten.items() <= starts(fleet).items()  # a larger number restarts nobody
                elif output.count("it takes part from the next run on") == 4 and "next run on" in line:
                    scale(fleet, 7)
        print(output)
        assert fleet("results").returncode == 0
        metrics: dict[str, Any] = json.loads((fleet.results / run_id(output) / "metrics.json").read_text())
        assert metrics["status"] == "completed"
        assert [entry["round"] for entry in metrics["rounds"]] == [*range(1, ROUNDS + 1)]
        assert (metrics["num-supernodes"], metrics["num-partitions"]) == (10, 10)
        changes = metrics["fleet-changes"]
        joined = {c["partition-id"] for c in changes if c["what"] == "joined" and not c["takes-part"]}
        left = {c["partition-id"] for c in changes if c["what"] == "left" and c["takes-part"]}
        assert joined == {10, 11, 12, 13}
        assert left >= {7, 8, 9}
        for partition_id in (7, 8, 9):
            assert re.search(
                rf"Round \d+: SuperNode \d+ \(partition-id {partition_id}\) left; \d of 10 remain online", output
            )
        for entry in metrics["rounds"]:
            for phase in (entry["train"], entry["evaluate"]):
                assert phase["replies"] == len(phase["nodes"]) > 0
                assert {node["partition-id"] for node in phase["nodes"].values()} <= set(range(10))
                assert phase["failures"] == len(phase["errors"])
                assert all("partition-id " in reason for reason in phase["errors"].values())
            assert entry["evaluate"]["metrics"]["num-partitions"] == pytest.approx(10)
        wait_until(
            lambda: partition_ids(fleet) == [*range(7)], "the seven that are left are in their places", SETTLED_SECONDS
        )


def test_a_fleet_of_processes_grows_and_shrinks_and_restarts_nobody_who_stays(
    start_fleet: StartFleet, tmp_path: Path
) -> None:
    with start_fleet("processes", tmp_path, SUPERNODES="2", EXECUTOR_PRELOAD="flwr") as fleet:
        two = fleet.serving()
        assert two.keys() == {0, 1}
        up = fleet("up", SUPERNODES="3")
        assert up.returncode == 0, up.stdout + up.stderr
        three = fleet.serving()
        assert three.keys() == {0, 1, 2}
        assert two.items() <= three.items()
        assert fleet("up", SUPERNODES="1").returncode == 0
        wait_until(lambda: fleet.serving().keys() == {0}, "only the first is left", SETTLED_SECONDS)
        assert fleet.serving().items() <= two.items()
        # By another number of SuperNodes in the environment, too: the fleet is what runs.
        _, *members, _ = fleet("status").stdout.splitlines()
        assert [line.split()[0] for line in members] == ["superlink", "supernode-0"]
