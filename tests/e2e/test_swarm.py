"""A fleet on three hosts of a Docker Swarm: `bouquet swarm`, and what happens when a host is lost.

Each host is a Docker daemon of the test's own, in a network namespace. With BOUQUET_SWARM_TESTS=all it also scales the
fleet, updates it during a run, and assigns GPUs: 5 minutes more, which CI leaves out.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bouquet.host.bundle import image_archive
from tests.e2e.conftest import APPS, BOUQUET, COMMAND_SECONDS, PROJECT, Bouquet, wait_until
from tests.e2e.docker_host import can_have_hosts
from tests.e2e.swarm_hosts import SwarmHost, swarm_hosts

SUPERNODES = 9
UID = 49999
MIB = 1 << 20
SERVICES = ("superlink", "control", "supernode")
only_in_full = pytest.mark.skipif(
    os.environ.get("BOUQUET_SWARM_TESTS") != "all", reason="takes minutes; all tests: BOUQUET_SWARM_TESTS=all"
)


@dataclass
class Stack:
    """The fleet on the hosts; commands run on the first one."""

    hosts: list[SwarmHost]
    fleet: Bouquet

    @property
    def manager(self) -> SwarmHost:
        return self.hosts[0]

    @property
    def name(self) -> str:
        return self.fleet.project

    def bouquet(self, *arguments: str, **settings: str) -> str:
        done = self.manager(BOUQUET, *arguments, cwd=PROJECT, environment=self.fleet.environment | settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, rounds: int, supernodes: int = SUPERNODES, **run_config: Any) -> str:
        """Run the app as `bouquet run` does, which deploys so many SuperNodes; return what it printed."""
        with self.running(rounds, supernodes, **run_config) as log:
            pass
        return log.read_text()

    @contextmanager
    def running(self, rounds: int, supernodes: int = SUPERNODES, **run_config: Any) -> Iterator[Path]:
        """Start a run; give its log; wait for its end, which must be a success."""
        config = " ".join(
            f"{key.replace('_', '-')}={value}" for key, value in {"num_server_rounds": rounds, **run_config}.items()
        )
        log = self.fleet.folder / "run.log"
        command = self.manager.inside(BOUQUET, "run", "--run-config", config)
        settings = {"DOCKER_HOST": self.manager.endpoint, "SUPERNODES": str(supernodes)}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=PROJECT, env=self.fleet.environment | settings, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield log
            assert process.wait(COMMAND_SECONDS) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()

    def tasks(self, service: str) -> dict[int, dict[str, str]]:
        """The tasks that Swarm wants to run, by slot."""
        options = ("--no-trunc", "--filter", "desired-state=running", "--format", "{{json .}}")
        lines = self.manager.docker("service", "ps", *options, f"{self.name}_{service}").splitlines()
        return {int(task["Name"].rpartition(".")[2]): task for task in map(json.loads, lines)}

    def containers(self, host: SwarmHost, service: str) -> list[dict[str, Any]]:
        label = f"label=com.docker.swarm.service.name={self.name}_{service}"
        ids = host.docker("ps", "--quiet", "--filter", label).split()
        found: list[dict[str, Any]] = json.loads(host.docker("inspect", *ids)) if ids else []
        return found

    def slots(self, host: SwarmHost) -> set[int]:
        return {int(each["Name"].split(".")[1]) for each in self.containers(host, "supernode")}

    def node_ids(self) -> dict[int, str]:
        """The node-id on each partition, as `bouquet status` shows it."""
        rows = re.findall(r"^\S+_supernode\.\d+ +supernode +(\d+) +(\d+) ", self.bouquet("status"), re.MULTILINE)
        return {int(partition_id): node_id for partition_id, node_id in rows}

    def online(self) -> int:
        match = re.search(r"the SuperLink counts (\d+) SuperNodes as online", self.bouquet("status"))
        return int(match[1]) if match else 0


@pytest.fixture(scope="module")
def hosts(docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SwarmHost]]:
    if not can_have_hosts("iptables"):
        pytest.skip("Docker daemons of its own need root, dockerd, ip, iptables and nsenter")
    with swarm_hosts(tmp_path_factory.mktemp("swarm"), 3) as found:
        yield found


@pytest.fixture(scope="module")
def stack(
    hosts: list[SwarmHost], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The fleet, deployed with images that `bouquet swarm images` has brought to all hosts."""
    settings = {
        "APP": str(APPS / "plain_fedavg"),
        "SUPERNODES": str(SUPERNODES),
        "SUPERNODE_MEMORY": "600m",
        "SUPERNODE_CPUS": "0.5",
        "SUPERNODE_PIDS": "512",
        "UP_TIMEOUT": "600",
    }
    fleet = Bouquet("swarm", tmp_path_factory.mktemp("fleet"), settings)
    began = time.monotonic()
    brought = subprocess.run(
        [BOUQUET, "swarm", "images", *(host.endpoint for host in hosts)],
        cwd=PROJECT,
        env=fleet.environment,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    assert brought.returncode == 0, brought.stdout + brought.stderr
    (tag,) = re.findall(r"images: (swarm-\w+)$", brought.stdout, re.MULTILINE)
    fleet.environment["SWARM_IMAGES"] = tag
    found = Stack(hosts, fleet)
    try:
        print(f"images: {time.monotonic() - began:.0f} s")
        found.bouquet("swarm", "deploy")
        print(f"images and deploy: {time.monotonic() - began:.0f} s")
        yield found
    finally:
        subprocess.run(["docker", "image", "rm", *image_archive.names(tag)], capture_output=True)
        if request.session.testsfailed:
            for service in SERVICES:
                print(hosts[0].docker("service", "ps", "--no-trunc", f"{found.name}_{service}", check=False))
                print(hosts[0].docker("service", "logs", "--tail", "40", f"{found.name}_{service}", check=False))


def can_connect(host: SwarmHost, address: str, port: int) -> bool:
    code = f"import socket; socket.create_connection(({address!r}, {port}), 5)"
    return host(sys.executable, "-c", code).returncode == 0


def test_five_rounds_on_three_hosts_have_no_failures(stack: Stack) -> None:
    assert sum(len(stack.slots(host)) for host in stack.hosts) == SUPERNODES
    assert all(stack.slots(host) for host in stack.hosts)
    output = stack.run(5)
    assert output.count("9 of 9") == 10
    assert "failed:" not in output
    assert len(list((stack.fleet.results).glob("*/metrics.json"))) >= 1


def test_the_control_api_is_open_on_the_managers_loopback_only(stack: Stack) -> None:
    port = int(stack.fleet.environment["CONTROL_PORT"])
    assert can_connect(stack.manager, "127.0.0.1", port)
    for host in stack.hosts[1:]:
        assert not can_connect(host, stack.manager.address, port)
        assert not can_connect(host, "127.0.0.1", port)
    assert not can_connect(stack.manager, stack.manager.address, port)
    assert not can_connect(stack.hosts[1], stack.manager.address, 9092)  # the Fleet API is on the overlay network
    (supernode, *_) = stack.containers(stack.hosts[1], "supernode")
    for wanted, code in ((0, 9092), (1, 9093), (1, port)):
        connect = f"import socket; socket.create_connection(('superlink', {code}), 5)"
        done = stack.hosts[1]("docker", "exec", supernode["Id"], "python3", "-c", connect)
        assert done.returncode == wanted, (code, done.stderr)


LIMITS = {
    "superlink": (4096 * MIB, 2_000_000_000, 8192),
    "control": (256 * MIB, 1_000_000_000, 128),
    "supernode": (600 * MIB, 500_000_000, 512),
}


@pytest.mark.parametrize("service", SERVICES)
def test_every_task_is_as_hardened_as_on_one_machine(stack: Stack, service: str) -> None:
    found = [(host, container) for host in stack.hosts for container in stack.containers(host, service)]
    assert len(found) == (SUPERNODES if service == "supernode" else 1)
    grace = "{{.Spec.TaskTemplate.ContainerSpec.StopGracePeriod}}"
    assert stack.manager.docker("service", "inspect", "--format", grace, f"{stack.name}_{service}") == "10s"
    for host, container in found:
        settings = container["HostConfig"]
        assert settings["ReadonlyRootfs"] and settings["Init"] and not settings["Privileged"]
        assert settings["CapDrop"] == ["ALL"] and not settings["CapAdd"]
        assert (settings["Memory"], settings["NanoCpus"], settings["PidsLimit"]) == LIMITS[service]
        assert settings["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}
        assert not settings["PortBindings"]
        assert container["Config"]["User"] == f"{UID}:{UID}"
        if service != "control":
            assert container["State"]["Health"]["Status"] == "healthy"
        if service == "supernode":
            assert settings["Sysctls"] == {"net.ipv4.tcp_retries2": "5"}
        writable = {each["Target"] for each in settings["Mounts"] if not each.get("ReadOnly")}
        assert {"/tmp"} < writable
        look = (
            "grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/1/status;"
            "touch /opt/x 2>/dev/null || echo 'Root: read-only';"
            f"for each in {' '.join(sorted(writable))}; do touch $each/x && rm $each/x || echo Closed: $each; done"
        )
        lines = host.docker("exec", container["Id"], "sh", "-c", look).splitlines()
        status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        assert status["Root"] == "read-only" and "Closed" not in status
        assert status["Uid"].split() == [str(UID)] * 4
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_no_task_but_the_superlink_has_the_key_of_the_ca(stack: Stack) -> None:
    for host in stack.hosts:
        for service in SERVICES:
            for container in stack.containers(host, service):
                mounts = host.docker("exec", container["Id"], "cat", "/proc/mounts")
                assert ("ca.key" in mounts) == (service == "superlink")
                assert "PRIVATE KEY" not in str(container["Config"])


def test_deploying_again_restarts_nothing_and_keeps_the_secrets(stack: Stack) -> None:
    def state() -> object:
        secrets = stack.manager.docker("secret", "ls", "--format", "{{.ID}} {{.Name}}").splitlines()
        return sorted(secrets), [{slot: t["ID"] for slot, t in stack.tasks(each).items()} for each in SERVICES]

    before = state()
    stack.bouquet("swarm", "deploy")
    assert state() == before


def test_a_run_survives_the_loss_of_a_host_and_its_nodes_come_back_elsewhere_as_the_same(stack: Stack) -> None:
    lost, survivors = stack.hosts[2], stack.hosts[:2]
    slots, before = stack.slots(lost), stack.node_ids()
    assert len(before) == SUPERNODES
    with stack.running(4, train_seconds=5.0) as log:
        wait_until(lambda: "configure_train" in log.read_text().partition("[ROUND 2/4]")[2], "round 2", 120)
        time.sleep(2.5)  # by now each node has its message, and trains for 5 s; one without a message loses none
        lost.lose()
    output = log.read_text()
    named = {
        int(number) for number in re.findall(r"^failed: round \d+, .*\(partition-id (\d+)\)", output, re.MULTILINE)
    }
    assert named == {slot - 1 for slot in slots}, output
    assert "4   9 of 9" in output
    assert sum(len(stack.slots(host)) for host in survivors) == SUPERNODES
    assert stack.online() == SUPERNODES
    assert stack.node_ids() == before


@only_in_full
def test_a_host_that_comes_back_takes_part_again_and_no_node_is_there_twice(stack: Stack) -> None:
    before = stack.node_ids()
    returned = stack.hosts[2]
    returned.come_back()
    status = "{{.Status.State}}"
    node = returned.docker("info", "--format", "{{.Swarm.NodeID}}")
    wait_until(
        lambda: stack.manager.docker("node", "inspect", "--format", status, node) == "ready", "the host is back", 60
    )
    wait_until(lambda: not stack.slots(returned), "its old tasks end", 60)
    assert "9 of 9" in stack.run(1)
    assert stack.node_ids() == before


@only_in_full
def test_the_fleet_grows_and_shrinks_without_a_restart(stack: Stack) -> None:
    def tasks() -> set[str]:
        return {task["ID"] for service in ("superlink", "supernode") for task in stack.tasks(service).values()}

    before = tasks()
    stack.manager.docker("service", "scale", "--detach", f"{stack.name}_supernode=12")
    wait_until(lambda: stack.online() == 12, "12 SuperNodes", 120, lambda: stack.bouquet("status"))
    output = stack.run(1, 12)
    assert "12 of 12" in output and "12.0000" in output  # num-partitions
    large = tasks()
    assert before < large
    stack.bouquet("swarm", "deploy", SUPERNODES="6")  # Swarm chooses which slots end, so they have gaps
    wait_until(lambda: "6 of 6" in (text := stack.run(1, 6)) and "6.0000" in text, "six partitions", 120)
    assert len(tasks()) == 7 and tasks() < large
    stack.bouquet("swarm", "deploy")


@only_in_full
def test_a_rolling_update_loses_no_run_and_one_node_at_a_time(stack: Stack) -> None:
    before = stack.node_ids()
    with stack.running(30, train_seconds=3.0) as log:
        wait_until(lambda: "[ROUND 2/30]" in log.read_text(), "round 2", 120, log.read_text)
        stack.manager.docker("service", "update", "--force", "--detach", f"{stack.name}_supernode")
    rounds = re.findall(r"^ +\d+ +(\d+) of \d", log.read_text(), re.MULTILINE)
    assert len(rounds) == 30
    assert min(map(int, rounds)) >= SUPERNODES - 2, rounds
    wait_until(lambda: stack.online() == SUPERNODES, "all nodes", 180)
    assert stack.node_ids() == before


@only_in_full
def test_plain_docker_deploys_the_stack_and_swarm_assigns_gpus(stack: Stack) -> None:
    files = [PROJECT / "deploy" / "swarm" / name for name in ("stack.yml", "gpu.yml")]
    environment = stack.fleet.environment | {"TAG": stack.fleet.environment["SWARM_IMAGES"], "SUPERNODES": "3"}
    options = [option for file in files for option in ("-c", str(file))]
    done = stack.manager(
        "docker", "stack", "deploy", "--resolve-image", "never", *options, stack.name, environment=environment
    )
    assert done.returncode == 0, done.stderr

    def devices() -> set[str]:
        found = [(host, each["Id"]) for host in stack.hosts for each in stack.containers(host, "supernode")]
        logs = "".join(host.docker("logs", container, check=False) for host, container in found)
        return set(re.findall(r"computes on: (GPU-\d)\b", logs))

    wait_until(lambda: devices() == {"GPU-1", "GPU-2", "GPU-3"}, "a GPU each", 180, devices)


def test_down_removes_the_tasks_and_keeps_secrets_and_results(stack: Stack) -> None:
    look: Callable[..., str] = stack.manager.docker
    stack.bouquet("swarm", "down")
    assert look("service", "ls", "--quiet") == ""
    assert all(host.docker("ps", "--quiet", "--filter", f"name={stack.name}") == "" for host in stack.hosts[:2])
    assert len(look("secret", "ls", "--quiet").split()) == 3
    assert f"{stack.name}_results" in look("volume", "ls", "--format", "{{.Name}}")
