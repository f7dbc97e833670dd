"""The fleet as containers: `docker-compose.yml`, driven through python-on-whales."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from python_on_whales import Container, DockerClient
from python_on_whales.exceptions import DockerException

from bouquet.contract.node_status import NodeStatus, read_all
from bouquet.errors import FleetError
from bouquet.gpu import nvidia
from bouquet.gpu import plan as gpu
from bouquet.host.bootstrap import base_image, compose_plugin
from bouquet.host.fleet.base import TAIL, UNHEALTHY_HINT, Member, is_complete
from bouquet.settings.host import PROJECT, HostSettings

GPU_OVERLAY = PROJECT / "deploy" / "compose" / "gpu.yml"
RESULTS_IN_CONTAINER = "/var/lib/bouquet/results"
LEASES_IN_CONTAINER = "/var/lib/bouquet/leases"
NODES_IN_CONTAINER = f"{LEASES_IN_CONTAINER}/nodes"
CERTIFICATE_IN_CONTAINER = "/var/lib/bouquet/server/ca.crt"
MEMBERS = ("superlink", "supernode")
"""The roles that stay; the one-shots beside them are done when these are healthy."""
LOOK = 1.0
"""Seconds between two looks at a fleet that is becoming what it is to be: each asks Docker and a container."""


class ComposeFleet:
    """One SuperLink container and N SuperNode containers."""

    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        if settings.dataset is not None:
            os.environ["DATASET"] = str(settings.dataset)
        if settings.certificates.user_dir is not None:
            os.environ["CERTIFICATES"] = str(settings.certificates.user_dir)
        if settings.hub_token is not None:
            os.environ["HF_TOKEN_FILE"] = str(settings.hub_token)
        self._compose_files: list[str | Path] = [PROJECT / "docker-compose.yml"]
        self._docker = DockerClient(compose_files=self._compose_files)

    def prepare(self) -> Iterator[str]:
        """Make sure of Compose v2 and of an image to build from, then build; what has not changed is cached."""
        yield compose_plugin.ensure()
        shares, why = nvidia.for_containers(self._settings.gpus, self._settings.supernodes)
        yield from gpu.summary(shares, why)
        if shares:
            self._docker = DockerClient(compose_files=[*self._compose_files, GPU_OVERLAY])
        base = self._settings.base_image or base_image.ensure()
        os.environ["BASE_IMAGE"] = base  # read by Compose, as from .env
        yield f"images: built on {base}"
        try:
            self._docker.compose.build()
        except DockerException as error:
            raise FleetError(
                "the images did not build (see above)", "mend what the build says, and run it again"
            ) from error

    def up(self) -> None:
        """Start what is not running yet, end what is too many, and wait until all are healthy and in their places."""
        deadline = time.monotonic() + self._settings.up_timeout
        try:
            self._docker.compose.up(detach=True, wait=True, wait_timeout=self._settings.up_timeout)
        except DockerException as error:
            self._raise_unhealthy(error)
        # In a fleet that shrinks, those that stay may have to take other places than they had: they start over.
        while not is_complete(self.members(), self._settings.supernodes):
            if time.monotonic() > deadline:
                self._raise_unhealthy(None)
            time.sleep(LOOK)

    def down(self, *, volumes: bool = False) -> None:
        """Stop and remove the containers, and with `volumes` those too.

        Docker 20.10 at times counts containers on a network that are gone, and will not remove it. Compose says so; the
        next start uses it again.
        """
        try:
            self._docker.compose.down(remove_orphans=True, volumes=volumes)
        except DockerException:
            if self._docker.compose.ps(all=True):
                raise

    def members(self) -> list[Member]:
        """Return the project's containers."""
        containers = [c for c in self._docker.compose.ps(all=True) if _role(c) in MEMBERS]
        partition_ids = self._partition_ids(containers)
        members = [_member(container, partition_ids.get(container.id)) for container in containers]
        return sorted(members, key=lambda member: (member.role, member.partition_id is None, member.partition_id or 0))

    def reports(self) -> list[NodeStatus]:
        """Return what the SuperNodes wrote on the volume that they share, out of one that runs."""
        supernodes = self._docker.compose.ps(["supernode"])
        with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(DockerException):
            if supernodes:
                self._docker.container.copy((supernodes[0], f"{NODES_IN_CONTAINER}/."), scratch)
            return read_all(Path(scratch))
        return []

    def memory(self) -> dict[str, int]:
        """Return what Docker measures, without the page cache."""
        try:
            measured = self._docker.container.stats(self._docker.compose.ps())
        except DockerException:  # a container has gone meanwhile
            return {}
        return {each.container_name: int(each.memory_used) for each in measured}

    def logs(self, *, follow: bool) -> None:
        """Print the containers' logs."""
        with contextlib.suppress(KeyboardInterrupt):
            for _, line in self._docker.compose.logs(follow=follow, stream=True, tail="100"):
                print(line.decode(errors="replace"), end="")

    def root_certificate(self) -> bytes | None:
        """Return the CA's certificate, out of the SuperLink's volume."""
        if self._settings.insecure:
            return None
        superlinks = self._docker.compose.ps(["superlink"])
        if not superlinks:
            raise FleetError("the SuperLink's container is not running", "start the fleet: make up")
        with tempfile.TemporaryDirectory() as scratch:
            self._docker.container.copy((superlinks[0], CERTIFICATE_IN_CONTAINER), scratch)
            return (Path(scratch) / "ca.crt").read_bytes()

    def collect_results(self, destination: Path, run_id: str | None = None) -> None:
        """Copy results out of the SuperLink's volume: whoever copies owns them, whatever uid wrote them."""
        superlinks = self._docker.compose.ps(["superlink"])
        if not superlinks:
            raise FleetError("the SuperLink's container is not running", "start the fleet: make up")
        destination.mkdir(parents=True, exist_ok=True)
        source = f"{RESULTS_IN_CONTAINER}/{run_id or '.'}"
        try:
            self._docker.container.execute(superlinks[0], ["test", "-e", source])
        except DockerException:
            return  # a run that was refused at once leaves nothing
        try:
            self._docker.container.copy((superlinks[0], source), destination)
        except DockerException as error:
            raise FleetError(
                f"RESULTS={destination}: the results could not be copied there ({error.stderr})",
                "make room or give another folder, then: make results",
            ) from error
        if run_id is not None:
            latest = destination / "latest"
            latest.unlink(missing_ok=True)
            latest.symlink_to(run_id)

    def _partition_ids(self, containers: list[Container]) -> dict[str, int]:
        """Return the partition-id by container id, from the leases that are held: each names its holder's host."""
        for container in containers:
            if container.state.running and _role(container) == "supernode":
                # Whether a lease is held, only a process beside it can tell.
                command = ["python", "-m", "bouquet.contract.leases", LEASES_IN_CONTAINER]
                with contextlib.suppress(DockerException):  # it has just ended: ask another
                    held = json.loads(str(self._docker.container.execute(container, command)))
                    hosts = {host: int(partition_id) for partition_id, host in held.items()}
                    return {c.id: hosts[c.config.hostname] for c in containers if c.config.hostname in hosts}
        return {}

    def _raise_unhealthy(self, error: DockerException | None) -> None:
        bad = [member for member in self.members() if not member.healthy]
        bad += [
            _member(container, None)
            for container in self._docker.compose.ps(all=True)
            if _role(container) not in MEMBERS and container.state.exit_code
        ]
        names = [f"{member.name} ({member.state})" for member in bad] or ["no container was started"]
        tails = [f"--- {m.name}\n{self._docker.container.logs(m.name, tail=TAIL)}" for m in bad[-3:]]
        raise FleetError(
            f"SUPERNODES={self._settings.supernodes}: the fleet is not healthy: {', '.join(names)}\n"
            + "\n".join(tails),
            UNHEALTHY_HINT,
        ) from error


def _role(container: Container) -> str:
    return (container.config.labels or {}).get("com.docker.compose.service", "?")


def _member(container: Container, partition_id: int | None) -> Member:
    state = container.state
    health = state.health.status if state.health else None
    return Member(
        name=container.name,
        role=_role(container),
        state=(health or "running") if state.status == "running" else str(state.status),
        partition_id=partition_id,
        host=container.config.hostname or "",
    )
