"""The fleet as containers: runs `docker-compose.yml` through python-on-whales."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from python_on_whales import Container, DockerClient
from python_on_whales.components.compose.cli_wrapper import ComposeCLI
from python_on_whales.exceptions import DockerException

from bouquet.contract.node_status import NodeStatus, read_all
from bouquet.errors import FleetError
from bouquet.gpu import nvidia
from bouquet.gpu import plan as gpu
from bouquet.host.bootstrap import base_image, compose_plugin
from bouquet.host.fleet.base import LOG_TAIL_LINES, UNHEALTHY_HINT, Member, is_complete
from bouquet.host.fleet.compose_files import compose_files
from bouquet.host.fleet.image_build import build_images
from bouquet.host.fleet.superlink_container import copy_results, read_packages, read_tag
from bouquet.host.packages.package_list import PackageList
from bouquet.polling import poll_until
from bouquet.probing import last_line
from bouquet.settings.host import PROJECT, HostSettings

GPU_OVERLAY = PROJECT / "deploy" / "compose" / "gpu.yml"
LEASES_IN_CONTAINER = "/var/lib/bouquet/leases"
NODES_IN_CONTAINER = f"{LEASES_IN_CONTAINER}/nodes"
CERTIFICATE_IN_CONTAINER = "/var/lib/bouquet/server/ca.crt"
MEMBER_ROLES = ("superlink", "supernode")
"""The services that keep running. The others are one-shots, which have ended when these are healthy."""
CONVERGE_POLL_SECONDS = 1.0
"""Poll interval while the fleet converges; each poll asks Docker and a container."""
PROJECT_LABEL = "com.docker.compose.project"
FOLDER_LABEL = "com.docker.compose.project.working_dir"
"""The folder of the Compose file that a container was started from, in which Compose puts it."""


@contextlib.contextmanager
def docker_errors(what: str) -> Iterator[None]:
    """Turn an error of the `docker` command into one line.

    Args:
        what: What failed, for example "the containers could not be stopped".

    Raises:
        FleetError: The `docker` command failed.
    """
    try:
        yield
    except DockerException as error:
        reason = last_line(error.stderr or "", f"docker exited with code {error.return_code}")
        raise FleetError(f"{what}: {reason}", "check Docker: make doctor") from error


class ComposeFleet:
    """One SuperLink container and N SuperNode containers.

    Two checkouts on one Docker have the same Compose project unless they set `COMPOSE_PROJECT_NAME`. Compose would
    recreate or stop the other checkout's containers. So every method refuses a project that belongs to another
    checkout, with a `FleetError`.
    """

    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        if settings.dataset is not None:
            os.environ["DATASET"] = str(settings.dataset)
        if settings.certificates.user_dir is not None:
            os.environ["CERTIFICATES"] = str(settings.certificates.user_dir)
        if settings.hub_token is not None:
            os.environ["HF_TOKEN_FILE"] = str(settings.hub_token)
        if settings.hf_cache is not None:
            os.environ["HF_CACHE"] = str(settings.hf_cache)
        if settings.node_config.file is not None:
            os.environ["NODE_CONFIG_FILE"] = str(settings.node_config.file)
        os.environ["BOUQUET_NODE_CONFIG_DIGEST"] = settings.node_config.digest  # a changed file recreates the nodes
        self._compose_files = compose_files(PROJECT)
        self._docker = DockerClient(compose_files=[*self._compose_files])
        self._is_ours = False

    def uses_gpus(self) -> bool:
        """Whether the nodes compute on GPUs."""
        return bool(nvidia.for_containers(self._settings.gpus, self._settings.supernodes)[0])

    def python(self) -> str | None:
        """Return the Python of the default base images; None where the user has chosen another base image."""
        return None if self._settings.base_image else base_image.PYTHON

    def packages(self) -> str | None:
        """Return the digest of the running fleet's package list, which is in its image."""
        with docker_errors("the containers could not be listed"):
            superlinks = self._compose.ps(["superlink"])
        if not superlinks:
            return None
        return read_packages(self._docker, superlinks[0])

    def tag(self) -> str | None:
        """Return the tag of the SuperLink's image, which that of the SuperNodes has, too."""
        with docker_errors("the containers could not be listed"):
            superlinks = self._compose.ps(["superlink"])
        return read_tag(superlinks[0]) if superlinks else None

    def prepare(self, packages: PackageList) -> Iterator[str]:
        """Find or install Compose v2 and the base image, then build the images; unchanged layers are cached."""
        yield compose_plugin.ensure()
        self._refuse_foreign_project()  # before the minutes that a base image takes
        shares, why = nvidia.for_containers(self._settings.gpus, self._settings.supernodes)
        yield from gpu.summary(shares, why)
        if shares:
            self._docker = DockerClient(compose_files=[*self._compose_files, GPU_OVERLAY])
        yield from build_images(self._compose, self._settings, packages)

    @property
    def _compose(self) -> ComposeCLI:
        """Compose with the fleet's files; the first use checks that the project belongs to this checkout."""
        self._refuse_foreign_project()
        return self._docker.compose

    def _refuse_foreign_project(self) -> None:
        if self._is_ours:
            return
        with docker_errors("the Compose files are not valid"):
            project = self._docker.compose.config(return_json=True)["name"]
        with docker_errors("the containers could not be listed"):
            containers = self._docker.container.list(all=True, filters=[("label", f"{PROJECT_LABEL}={project}")])
        for container in containers:
            folder = (container.config.labels or {}).get(FOLDER_LABEL)
            if folder and os.path.realpath(folder) != os.path.realpath(self._compose_files[0].parent):
                raise FleetError(
                    f"COMPOSE_PROJECT_NAME={project}: its containers belong to another checkout, {folder}",
                    f"for a second fleet set other values in .env: COMPOSE_PROJECT_NAME={project}-2, CONTROL_PORT and "
                    f"FLEET_PORT; or remove the other fleet's containers: docker compose -p {project} down",
                )
        self._is_ours = True

    def up(self) -> None:
        """Start missing containers, stop surplus ones, and wait until all are healthy with a partition each.

        Raises:
            FleetError: The fleet is not healthy in time.
        """
        deadline = time.monotonic() + self._settings.up_timeout
        try:
            self._compose.up(detach=True, wait=True, wait_timeout=self._settings.up_timeout)
        except DockerException as error:
            self._raise_unhealthy(error)

        # In a fleet that shrinks, a SuperNode may have to acquire another partition: its process then restarts.
        def is_healthy() -> bool:
            return is_complete(self.members(), self._settings.supernodes)

        if not poll_until(is_healthy, deadline - time.monotonic(), CONVERGE_POLL_SECONDS):
            self._raise_unhealthy(None)

    def down(self, *, volumes: bool = False) -> None:
        """Stop and remove the containers; with `volumes`, remove the volumes too.

        Docker 20.10 sometimes fails to remove a network because it counts containers that no longer exist. That is no
        error here, since the next start uses the network again.

        Raises:
            FleetError: Containers are left.
        """
        with docker_errors("the containers could not be removed"):
            try:
                self._compose.down(remove_orphans=True, volumes=volumes)
            except DockerException:
                if self._compose.ps(all=True):
                    raise

    def members(self) -> list[Member]:
        """Return the SuperLink's and the SuperNodes' containers."""
        with docker_errors("the containers could not be listed"):
            containers = [c for c in self._compose.ps(all=True) if _role(c) in MEMBER_ROLES]
        partition_ids = self._partition_ids(containers)
        members = [_member(container, partition_ids.get(container.id)) for container in containers]
        return sorted(members, key=lambda member: (member.role, member.partition_id is None, member.partition_id or 0))

    def node_statuses(self) -> list[NodeStatus]:
        """Return the status files on the volume that all SuperNodes share, copied from a running one."""
        supernodes = self._compose.ps(["supernode"])
        with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(DockerException):
            if supernodes:
                self._docker.container.copy((supernodes[0], f"{NODES_IN_CONTAINER}/."), scratch)
            return read_all(Path(scratch))
        return []

    def memory(self) -> dict[str, int]:
        """Return the memory that Docker measures, without the page cache."""
        try:
            running = self._compose.ps()
            measured = self._docker.container.stats(running)
        except DockerException:  # a container has just ended
            return {}
        return {each.container_name: int(each.memory_used) for each in measured}

    def logs(self, *, follow: bool) -> None:
        """Print the containers' logs."""
        with contextlib.suppress(KeyboardInterrupt), docker_errors("the logs could not be read"):
            for _, line in self._compose.logs(follow=follow, stream=True, tail="100"):
                print(line.decode(errors="replace"), end="")

    def root_certificate(self) -> bytes | None:
        """Return the CA's certificate from the SuperLink's volume.

        Raises:
            FleetError: The SuperLink's container is not running.
        """
        if self._settings.insecure:
            return None
        superlink = self._superlink()
        with tempfile.TemporaryDirectory() as scratch, docker_errors("the CA's certificate could not be copied"):
            self._docker.container.copy((superlink, CERTIFICATE_IN_CONTAINER), scratch)
            return (Path(scratch) / "ca.crt").read_bytes()

    def collect_results(self, destination: Path, run_id: str | None = None) -> None:
        """Copy results out of the SuperLink's volume. The current user owns the copies.

        Raises:
            FleetError: The SuperLink's container is not running, or `destination` cannot be written to.
        """
        copy_results(self._docker, self._superlink(), destination, run_id)

    def _superlink(self) -> Container:
        with docker_errors("the containers could not be listed"):
            superlinks = self._compose.ps(["superlink"])
        if not superlinks:
            raise FleetError("the SuperLink's container is not running", "start the fleet: make up")
        return superlinks[0]

    def _partition_ids(self, containers: list[Container]) -> dict[str, int]:
        """Return the partition-id by container id, from the leases that are held. A lease names its holder's host."""
        for container in containers:
            if container.state.running and _role(container) == "supernode":
                # Only a process on the same volume can see whether a lease is locked.
                command = ["python", "-P", "-m", "bouquet.contract.leases", LEASES_IN_CONTAINER]
                with contextlib.suppress(DockerException):  # the container has just ended: ask the next one
                    held = json.loads(str(self._docker.container.execute(container, command)))
                    hosts = {host: int(partition_id) for partition_id, host in held.items()}
                    return {c.id: hosts[c.config.hostname] for c in containers if c.config.hostname in hosts}
        return {}

    def _raise_unhealthy(self, error: DockerException | None) -> None:
        bad = [member for member in self.members() if not member.healthy]
        bad += [
            _member(container, None)
            for container in self._compose.ps(all=True)
            if _role(container) not in MEMBER_ROLES and container.state.exit_code
        ]
        names = [f"{member.name} ({member.state})" for member in bad] or ["no container was started"]
        tails = [f"--- {m.name}\n{self._docker.container.logs(m.name, tail=LOG_TAIL_LINES)}" for m in bad[-3:]]
        raise FleetError(
            f"SUPERNODES={self._settings.supernodes}: the fleet is not healthy: {', '.join(names)}\n"
            + "\n".join(tails),
            UNHEALTHY_HINT,
        ) from error


def _role(container: Container) -> str:
    return (container.config.labels or {}).get("com.docker.compose.service", "?")


def _state(container: Container) -> str:
    state = container.state
    if state.status == "running":
        return str(state.health.status) if state.health and state.health.status else "running"
    reason = f", out of memory: set {_role(container).upper()}_MEMORY higher" if state.oom_killed else ""
    return f"{state.status}{reason}"


def _member(container: Container, partition_id: int | None) -> Member:
    return Member(
        name=container.name,
        role=_role(container),
        state=_state(container),
        partition_id=partition_id,
        host=container.config.hostname or "",
    )
