"""Hosts for a Docker Swarm on one machine: each is a Docker daemon of the test's own, in a network namespace.

The namespaces are connected by veth pairs to one bridge, without a route to anywhere else.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.e2e.conftest import COMMAND_SECONDS, TEST_ID, docker_answers, wait_until

DAEMON_SECONDS = 60
STORAGE_DRIVERS = ("overlay2", "fuse-overlayfs", "vfs")
"""The fastest that works here is used."""


def run(*command: str | Path, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


@dataclass
class SwarmHost:
    """One host: a network namespace with a Docker daemon."""

    number: int
    bridge: str
    folder: Path
    driver: str = STORAGE_DRIVERS[0]
    daemon: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def namespace(self) -> str:
        return f"bouquet-test-{TEST_ID}-{self.number}"

    @property
    def link(self) -> str:
        return f"{self.bridge}-{self.number}"

    @property
    def address(self) -> str:
        return f"10.213.0.{self.number}"

    @property
    def endpoint(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def inside(self, *command: str | Path) -> list[str | Path]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *command]

    def __call__(
        self, *command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] = os.environ
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on this host, with its Docker."""
        return subprocess.run(
            self.inside(*command),
            cwd=cwd,
            env={**environment, "DOCKER_HOST": self.endpoint},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )

    def docker(self, *arguments: str, check: bool = True) -> str:
        return run("docker", "-H", self.endpoint, *arguments, check=check)

    def connect(self) -> None:
        """Create the namespace, and connect it to the bridge."""
        self.folder.mkdir()
        run("ip", "netns", "add", self.namespace)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        run("ip", "link", "set", self.link, "master", self.bridge, "up")
        run(*self.inside("ip", "link", "set", "lo", "up"))
        run(*self.inside("ip", "address", "add", f"{self.address}/24", "dev", "eth0"))
        run(*self.inside("ip", "link", "set", "eth0", "up"))

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        for driver in STORAGE_DRIVERS[STORAGE_DRIVERS.index(self.driver) :]:
            self.driver = driver
            if self._start():
                return
        raise AssertionError((self.folder / "log").read_text())

    def _start(self) -> bool:
        configuration = {
            "storage-driver": self.driver,
            "no-new-privileges": True,
            "node-generic-resources": [f"NVIDIA-GPU=GPU-{self.number}"],  # a name is enough to be assigned
        }
        (self.folder / "daemon.json").write_text(json.dumps(configuration))
        options = {"config-file": "daemon.json", "data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        command = [f"--{option}={self.folder / value}" for option, value in options.items()]
        with (self.folder / "log").open("ab") as log:
            self.daemon = subprocess.Popen(
                self.inside("dockerd", *command, "-H", self.endpoint), stdout=log, stderr=log
            )
        daemon = self.daemon

        def answers() -> str:
            if daemon.poll() is not None:
                return "ended"
            version = ["docker", "-H", self.endpoint, "version"]
            return "" if subprocess.run(version, capture_output=True).returncode else "answers"

        return wait_until(answers, f"daemon {self.number}", DAEMON_SECONDS, (self.folder / "log").read_text) == (
            "answers"
        )

    def processes(self) -> list[psutil.Process]:
        """The daemon, its containerd, and everything in its containers."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(str(self.folder) in word for word in process.cmdline()):
                    found |= {each.pid: each for each in [process, *process.children(recursive=True)]}
        return list(found.values())

    def lose(self) -> None:
        """Lose the host as in a power cut: nothing that it runs says goodbye."""
        run("ip", "link", "set", self.link, "down")
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        assert self.daemon is not None
        self.daemon.wait(DAEMON_SECONDS)

    def come_back(self) -> None:
        """Switch a lost host on again."""
        run("ip", "link", "set", self.link, "up")
        (self.folder / "pid").unlink(missing_ok=True)
        self.start()

    def remove(self) -> None:
        """Remove the host and everything on it."""
        if self.daemon is not None and self.daemon.poll() is None:
            containers = self.docker("ps", "--all", "--quiet", check=False).split()
            if containers:
                self.docker("rm", "--force", "--volumes", *containers, check=False)
            self.daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.daemon.wait(DAEMON_SECONDS)
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((each for each in mounts if each.startswith(f"{self.folder}/")), reverse=True):
            run("umount", "--lazy", mount, check=False)
        run("ip", "netns", "delete", self.namespace, check=False)
        run("ip", "link", "delete", self.link, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def can_have_hosts() -> bool:
    """Whether this machine lets the test have daemons of its own."""
    tools = ("dockerd", "ip", "nsenter", "iptables")
    return os.geteuid() == 0 and all(map(shutil.which, tools)) and docker_answers()


@contextmanager
def swarm_hosts(folder: Path, number: int) -> Iterator[list[SwarmHost]]:
    """Give a Swarm of so many hosts; the first one is its manager. Everything is removed afterwards."""
    bridge = f"bq{os.getpid() % 100_000}"
    hosts = [SwarmHost(each, bridge, folder / f"host-{each}") for each in range(1, number + 1)]
    rule = ("FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT")
    try:
        run("ip", "link", "add", bridge, "type", "bridge")
        run("ip", "link", "set", bridge, "up")
        run("iptables", "-I", *rule)
        for host in hosts:
            host.connect()
        for host in hosts:
            host.start()
        manager = hosts[0]
        pool = ("--default-addr-pool", "10.214.0.0/16")
        manager.docker("swarm", "init", "--advertise-addr", manager.address, *pool)
        token = manager.docker("swarm", "join-token", "--quiet", "worker")
        for host in hosts[1:]:
            host.docker("swarm", "join", "--token", token, "--advertise-addr", host.address, f"{manager.address}:2377")
        yield hosts
    finally:
        for host in hosts:
            host.remove()
        run("iptables", "-D", *rule, check=False)
        run("ip", "link", "delete", bridge, check=False)
