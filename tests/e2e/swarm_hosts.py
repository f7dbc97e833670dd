"""Hosts for a Docker Swarm on one machine, connected by veth pairs to one bridge, without a route to anywhere else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.conftest import TEST_ID
from tests.e2e.docker_host import DockerHost, run


class SwarmHost(DockerHost):
    """One host.

    Args:
        number: Its number, from 1.
        bridge: The bridge that it is connected to.
        folder: For everything of its daemon.
    """

    def __init__(self, number: int, bridge: str, folder: Path) -> None:
        configuration = {
            "no-new-privileges": True,
            "node-generic-resources": [f"NVIDIA-GPU=GPU-{number}"],  # a name is enough to be assigned
        }
        super().__init__(f"bouquet-test-{TEST_ID}-{number}", folder, configuration)
        self.address = f"10.213.0.{number}"
        self._bridge = bridge
        self._link = f"{bridge}-{number}"

    def connect(self) -> None:
        """Create the namespace, and connect it to the bridge."""
        self.isolate()
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        run("ip", "link", "set", self._link, "master", self._bridge, "up")
        run(*self.inside("ip", "address", "add", f"{self.address}/24", "dev", "eth0"))
        run(*self.inside("ip", "link", "set", "eth0", "up"))

    def lose(self) -> None:
        """Lose the host as in a power cut: nothing that it runs says goodbye."""
        run("ip", "link", "set", self._link, "down")
        self.kill()

    def come_back(self) -> None:
        """Switch a lost host on again."""
        run("ip", "link", "set", self._link, "up")
        (self.folder / "pid").unlink(missing_ok=True)
        self.start()

    def remove(self) -> None:
        """Remove the host and everything on it."""
        super().remove()
        run("ip", "link", "delete", self._link, check=False)


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
