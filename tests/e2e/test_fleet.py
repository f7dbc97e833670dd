"""The main job on a fleet of ten, as processes and as containers; the tests of one kind share its fleet, in order."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from python_on_whales import DockerClient

from tests.e2e.conftest import CONNECTION, SUPERNODES, Bouquet, printed_json, run_id, wait_until

RUN_CONFIG = 'num-server-rounds=1 central-evaluation="final"'


# Prints the node configs in the command lines of the processes that it sees; runs where the fleet's processes are.
NODE_CONFIGS = """
import json, pathlib, sys
found = []
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split(chr(0))
        if "--node-config" in words and sys.argv[1].encode() in (process / "environ").read_bytes():
            found.append(words[words.index("--node-config") + 1])
    except OSError:
        pass
print(json.dumps(found))
"""


def node_configs(bouquet: Bouquet) -> list[str]:
    """The node configs of this fleet's SuperNodes, from their command lines, sorted."""
    if bouquet.kind == "processes":
        asked = subprocess.run(
            [sys.executable, "-c", NODE_CONFIGS, f"BOUQUET_HOME={bouquet.folder}"], capture_output=True, text=True
        )
        return sorted(json.loads(asked.stdout))
    containers = bouquet.compose.ps(["supernode"])
    command = ["python", "-P", "-c", NODE_CONFIGS, "BOUQUET_SIZE_FILE="]
    return sorted(config for c in containers for config in json.loads(str(c.execute(command))))


def test_the_fleet_comes_up_healthy_with_every_partition_id_once(bouquet: Bouquet) -> None:
    up = bouquet("up")
    assert up.returncode == 0, up.stdout + up.stderr
    status = bouquet("status")
    assert status.returncode == 0, status.stderr
    head, *lines, last = status.stdout.splitlines()
    rows = [dict(zip(head.split(), line.split(), strict=True)) for line in lines]
    assert [row["state"] for row in rows] == ["healthy"] * (SUPERNODES + 1)
    nodes = [row for row in rows if row["role"] == "supernode"]
    assert sorted(int(row["partition-id"]) for row in nodes) == list(range(SUPERNODES))
    assert len({int(row["node-id"]) for row in nodes}) == SUPERNODES
    assert {(row["device"], row["runs"]) for row in nodes} == {("CPU", "idle")}
    assert all(int(row["heartbeat"].removesuffix("s")) < 120 for row in nodes)
    assert all(int(row["memory"].removesuffix("MiB")) > 50 for row in rows)
    assert last == f"the SuperLink counts {SUPERNODES} SuperNodes as online"
    assert node_configs(bouquet) == sorted(f"partition-id={k} num-partitions={SUPERNODES}" for k in range(SUPERNODES))


def test_a_run_shows_its_rounds_and_leaves_its_results_to_the_user(bouquet: Bouquet) -> None:
    run = bouquet("run", RUN_CONFIG=RUN_CONFIG)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"Sampled {SUPERNODES // 2} nodes (out of {SUPERNODES})" in run.stdout
    assert f"Sampled {SUPERNODES} nodes (out of {SUPERNODES})" in run.stdout
    assert "and 0 failures" in run.stdout
    folder = bouquet.results / run_id(run.stdout)
    assert (bouquet.results / "latest").resolve() == folder
    for name in ("final_model.keras", "metrics.json", "history.png", "label_counts.png"):
        assert (folder / name).stat().st_size > 0
        assert (folder / name).stat().st_uid == os.getuid()
        assert f"\n  {name} " in run.stdout
    assert f"\nresults in {folder}:\n" in run.stdout
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["status"] == "completed"
    assert "Dataset: sample (10,000 train and 2,000 test images of CIFAR-10" in run.stdout
    first = metrics["rounds"][0]
    assert (first["train"]["replies"], first["train"]["failures"]) == (SUPERNODES // 2, 0)
    assert sorted(node["partition-id"] for node in first["evaluate"]["nodes"].values()) == list(range(SUPERNODES))
    assert 0 < first["central"]["eval_acc"] <= 1


def test_a_run_that_cannot_work_exits_non_zero_and_names_the_setting_the_value_and_the_fix(bouquet: Bouquet) -> None:
    run = bouquet("run", RUN_CONFIG="batch-size=0")
    assert run.returncode == 5
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("bouquet: error: run ")
    assert "batch-size=0: " in last


def test_a_key_that_the_app_does_not_have_is_refused_before_it_starts(bouquet: Bouquet) -> None:
    run = bouquet("run", RUN_CONFIG="learning-rat=1")
    assert run.returncode == 2
    assert "RUN_CONFIG=learning-rat=1: the app has no setting learning-rat; it has: " in run.stderr


def test_containers_are_healthy_and_published_on_loopback_alone(bouquet: Bouquet) -> None:
    if bouquet.kind == "processes":
        pytest.skip("of a fleet of containers")
    containers = bouquet.compose.ps()
    assert len(containers) == SUPERNODES + 1
    assert {container.state.health.status for container in containers if container.state.health} == {"healthy"}
    bindings = [
        b for c in containers for published in (c.host_config.port_bindings or {}).values() for b in published or ()
    ]
    assert {binding.host_ip for binding in bindings} == {"127.0.0.1"}


def pids(bouquet: Bouquet) -> dict[str, int]:
    return {container.name: container.state.pid or 0 for container in bouquet.compose.ps(["supernode"])}


def test_a_client_app_over_its_containers_memory_limit_is_answered_for_and_the_node_lives(bouquet: Bouquet) -> None:
    if bouquet.kind == "processes":
        pytest.skip("of a fleet of containers")
    containers = bouquet.compose.ps(["supernode"])
    before = pids(bouquet)
    for container in containers:
        DockerClient().container.update(container, memory="1200m", memory_swap="1200m")
    output = bouquet.submit("faulty", "--stream", nodes=SUPERNODES, rounds=3, fault="memory")
    replies = printed_json("faulty", output)
    errors = [reply["error"] for reply in replies if "error" in reply]
    assert len(errors) == SUPERNODES
    # The kernel sometimes kills the zygote too, while the memory of the killed ClientApp is not yet free.
    killed = (
        r"partition-id \d+: The ClientApp process (died with the executor's zygote, which )?"
        r"was killed by signal 9 \(SIGKILL\): out of memory"
    )
    assert [error for error in errors if not re.match(killed, error)] == []
    assert len([reply for reply in replies if reply["round"] == 3 and "error" not in reply]) == SUPERNODES
    assert pids(bouquet) == before


def test_a_container_that_is_stopped_while_it_trains_ends_by_itself_within_its_grace_period(bouquet: Bouquet) -> None:
    if bouquet.kind == "processes":
        pytest.skip("of a fleet of containers")
    run = run_id(bouquet.submit("faulty", nodes=SUPERNODES, rounds=1000, pause=5.0))
    # Each message takes 5 s, so nearly always one is in progress.
    wait_until(lambda: run in bouquet("status").stdout, "a node works on the run", 60)
    supernode = bouquet.compose.ps(["supernode"])[0]
    began = time.monotonic()
    supernode.stop(time=10)
    print(f"docker stop took {time.monotonic() - began:.1f} s")
    assert DockerClient().container.inspect(supernode).state.exit_code != 128 + signal.SIGKILL
    bouquet.flwr("stop", run, CONNECTION)


def test_down_leaves_nothing_running(bouquet: Bouquet) -> None:
    down = bouquet("down")
    assert down.returncode == 0, down.stderr
    assert node_configs(bouquet) == []
    status = bouquet("status")
    assert status.returncode == 4
    assert "the fleet is down; start it: make up" in status.stderr
