"""The fleet as tasks of a Docker Swarm, on several hosts: deploys `deploy/swarm/stack.yml`."""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from python_on_whales import Container, DockerClient
from python_on_whales.exceptions import DockerException

from bouquet.contract.node_status import NodeStatus, parse_status
from bouquet.contract.partitions import NODES
from bouquet.contract.tls_files import CA
from bouquet.errors import FleetError, HostError, SettingError
from bouquet.host.bootstrap import base_image, compose_plugin
from bouquet.host.bundle import image_archive
from bouquet.host.fleet.base import LOG_TAIL_LINES, UNHEALTHY_HINT, Member, is_complete
from bouquet.host.fleet.compose_files import compose_files
from bouquet.host.fleet.image_build import build_images
from bouquet.host.fleet.superlink_container import copy_results, read_packages, read_tag
from bouquet.host.packages.package_list import PackageList
from bouquet.host.swarm import docker_swarm, host_images
from bouquet.host.swarm.docker_swarm import Task, change
from bouquet.host.swarm.stack_names import FOLDER, LEASE_FOLDER, RUN_FOLDER, SERVER_FOLDER, STACK, SUPERLINK_LABEL
from bouquet.host.swarm.stack_secrets import ensure_secrets, remove_secrets
from bouquet.polling import poll_until
from bouquet.probing import probe
from bouquet.settings.host import PROJECT, HostSettings

SERVICES = ("superlink", "control", "supernode")
MEMBER_ROLES = ("superlink", "supernode")
POLL_SECONDS = 1.0
"""Poll interval while the stack converges."""
DOWN_TIMEOUT = 60.0
"""Seconds that the containers of this host may take to end, and its networks to vanish."""
NAMESPACE_LABEL, SERVICE_LABEL = "com.docker.stack.namespace", "com.docker.swarm.service.name"
GPU_BUILD = PROJECT / "deploy" / "compose" / "gpu.yml"
FAILED_UPDATES = ("paused", "rollback_started", "rollback_paused", "rollback_completed")


class SwarmFleet:
    """A stack: one SuperLink, its proxy for the Control API, and N SuperNodes, each a task of Swarm.

    Its commands run on the SuperLink's host, which must be a manager.
    """

    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        self._stack = settings.compose_project
        self._docker = DockerClient(compose_files=[*compose_files(PROJECT)])
        self._uses_gpus: bool | None = None

    def uses_gpus(self) -> bool:
        """Whether the hosts offer a GPU for each SuperNode, as generic resources of their daemons."""
        if self._uses_gpus is None:
            if self._settings.gpus.devices:
                hint = "leave GPUS out, and list the GPUs in each host's daemon.json (docs/swarm.md), or set GPUS=none"
                raise SettingError("GPUS", os.environ.get("GPUS", ""), "in a Swarm, Swarm assigns the GPUs", hint)
            wanted = self._settings.gpus.devices is None and docker_swarm.is_manager()
            self._uses_gpus = wanted and sum(n.gpus for n in docker_swarm.nodes()) >= self._settings.supernodes
        return self._uses_gpus

    def python(self) -> str | None:
        """Return the Python of the default base images; None where the user has chosen another base image."""
        return None if self._settings.base_image else base_image.PYTHON

    def packages(self) -> str | None:
        """Return the digest of the running fleet's package list, which is in its image."""
        superlink = self._find_superlink()
        return read_packages(self._docker, superlink) if superlink else None

    def tag(self) -> str | None:
        """Return the tag of the SuperLink's image, which that of the SuperNodes has, too."""
        superlink = self._find_superlink()
        return read_tag(superlink) if superlink else None

    def prepare(self, packages: PackageList) -> Iterator[str]:
        """Build the images, name them by their content, and bring them to the hosts.

        Nothing is built where SWARM_IMAGES, or the list of packages, names images that the hosts have.
        """
        if self._settings.insecure:
            raise SettingError("INSECURE", 1, "a Swarm has more than one machine", "leave INSECURE out")
        yield "GPUs: one for each SuperNode, assigned by Swarm" if self.uses_gpus() else "GPUs: none"
        if self._settings.swarm.images:
            os.environ["TAG"] = self._settings.swarm.images
            yield f"images: {self._settings.swarm.images} (SWARM_IMAGES), which the hosts must have"
            return
        if packages.images is None:
            yield compose_plugin.ensure()
        files: list[str | Path] = [*compose_files(PROJECT), *([GPU_BUILD] if self.uses_gpus() else [])]
        yield from build_images(DockerClient(compose_files=files).compose, self._settings, packages)
        yield from self._distribute(os.environ.get("TAG") or self._settings.tag)

    def _distribute(self, tag: str) -> Iterator[str]:
        """Bring the images to the hosts, under a tag that names their content: a host never has an older image."""
        content = image_archive.content_tag(tag, "swarm")
        for source, target in zip(image_archive.names(tag), image_archive.names(content), strict=True):
            change("tag", source, target)
        os.environ["TAG"] = content
        yield from host_images.load_into(self._settings.swarm.hosts, content)
        if self._settings.swarm.registry:
            yield from host_images.push(self._settings.swarm.registry, content)
        yield f"images: {content}"

    def up(self) -> None:
        """Create what is missing (label, secrets), deploy the stack, and wait until all tasks are healthy.

        Raises:
            FleetError: This is not the SuperLink's host, or the fleet is not healthy in time.
        """
        self._label_superlinks_host()
        ensure_secrets(self._stack)
        self._deploy()
        self._wait_until_healthy()

    def _label_superlinks_host(self) -> None:
        """Label this host as the SuperLink's, if no host is.

        Raises:
            FleetError: Another host is: the fleet's state and results are in volumes there.
        """
        here = docker_swarm.this_node()
        labelled = [node for node in docker_swarm.nodes() if node.runs_superlink]
        if not labelled:
            change("node", "update", "--label-add", f"{SUPERLINK_LABEL}=true", here)
        elif [node.id for node in labelled] != [here]:
            other = next(node for node in labelled if node.id != here)
            raise FleetError(
                f"the Swarm's node {other.name} ({other.id}) has the label {SUPERLINK_LABEL}: the SuperLink runs there",
                "run the command there, or, without the fleet's state and results, move the label: "
                f"docker node update --label-rm {SUPERLINK_LABEL} {other.id}",
            )

    def _deploy(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            files = [STACK, *self._overlays(Path(scratch))]
            self._export_settings()
            options = ["--with-registry-auth"] if self._settings.swarm.registry else []
            named = [option for file in files for option in ("--compose-file", str(file))]
            change("stack", "deploy", "--resolve-image", "never", *options, *named, self._stack)

    def _overlays(self, scratch: Path) -> Iterator[Path]:
        """Yield the files in `deploy/swarm` that the settings ask for; `scratch` is for one that is written here."""
        settings = self._settings
        wanted = {
            "gpu": self.uses_gpus(),
            "dataset": settings.dataset,
            "hf-cache": settings.hf_cache,
            "hf-token": settings.hub_token,
            "node-config": settings.node_config.file,
            "certificates": settings.certificates.user_dir,
            "published": not ip_address(settings.fleet_bind).is_loopback,
        }
        yield from (FOLDER / f"{name}.yml" for name, yes in wanted.items() if yes)
        pids = {role: os.environ.get(f"{role.upper()}_PIDS", "").strip() for role in MEMBER_ROLES}
        if any(pids.values()):  # `docker stack deploy` wants literal numbers
            services = {
                role: {"deploy": {"resources": {"limits": {"pids": int(limit)}}}}
                for role, limit in pids.items()
                if limit.isdecimal()
            }
            path = scratch / "pids.yml"
            path.write_text(json.dumps({"version": "3.9", "services": services}), encoding="utf-8")
            yield path

    def _export_settings(self) -> None:
        """Put the settings into the environment, from which `docker stack deploy` reads them: it ignores .env."""
        settings = self._settings
        paths = {
            "DATASET": settings.dataset,
            "HF_CACHE": settings.hf_cache,
            "HF_TOKEN_FILE": settings.hub_token,
            "NODE_CONFIG_FILE": settings.node_config.file,
            "CERTIFICATES": settings.certificates.user_dir,
        }
        os.environ |= {name: str(path) for name, path in paths.items() if path is not None}
        os.environ["COMPOSE_PROJECT_NAME"] = self._stack
        os.environ["BOUQUET_NODE_CONFIG_DIGEST"] = settings.node_config.digest
        if settings.hub_token is not None:
            os.environ["BOUQUET_HF_TOKEN_DIGEST"] = _digest(settings.hub_token)
        if (folder := settings.certificates.user_dir) is not None:
            os.environ["BOUQUET_CERTIFICATES_DIGEST"] = _digest(*sorted(folder.glob("*.???")))
        registry = settings.swarm.registry
        os.environ["BOUQUET_IMAGE_PREFIX"] = f"{registry}/" if registry else ""

    def _wait_until_healthy(self) -> None:
        """Wait until the whole fleet is healthy, twice in a row: an update begins shortly after it was asked for."""
        healthy_before = False

        def is_stable() -> bool:
            nonlocal healthy_before
            healthy, healthy_before = healthy_before, self._is_healthy()
            return healthy and healthy_before

        if not poll_until(is_stable, self._settings.up_timeout, POLL_SECONDS):
            raise self._unhealthy()

    def _is_healthy(self) -> bool:
        """Whether all tasks are healthy and no update is in progress.

        Raises:
            FleetError: A host lacks the image, or Swarm has stopped an update.
        """
        tasks = docker_swarm.tasks(self._stack)
        if lacking := sorted({task.host or "a host" for task in tasks if "o such image" in task.error}):
            raise FleetError(
                f"no image {os.environ.get('TAG', '')} on {', '.join(lacking)}",
                "bring it there: bouquet swarm images ssh://HOST ...",
            )
        states = docker_swarm.update_states(self._stack, SERVICES)
        for service, (state, message) in states.items():
            if state in FAILED_UPDATES:
                raise FleetError(
                    f"Swarm stopped the update of {service} ({state}): {message}",
                    f"see: docker service ps "
                    f"{self._stack}_{service}; logs: bouquet logs; after a fix repeat: bouquet swarm deploy",
                )
        control = any(task.service == "control" and task.state == "running" for task in tasks)
        complete = is_complete([_member(t) for t in tasks if t.service in MEMBER_ROLES], self._settings.supernodes)
        return control and complete and not any(state == "updating" for state, _ in states.values())

    def _unhealthy(self) -> FleetError:
        tasks = [task for task in docker_swarm.tasks(self._stack) if task.state != "running"]
        names = [f"{self._stack}_{task.service}.{task.slot} ({_state(task)})" for task in tasks]
        logs = [
            f"--- {self._stack}_{service}\n" + _tail(f"{self._stack}_{service}")
            for service in sorted({task.service for task in tasks})
        ]
        problem = f"the fleet is not healthy: {', '.join(names) or 'a task is missing'}"
        return FleetError(f"UP_TIMEOUT={self._settings.up_timeout}: {problem}\n" + "\n".join(logs), UNHEALTHY_HINT)

    def down(self, *, volumes: bool = False) -> None:
        """Remove the stack, and wait until this host's part of it is gone.

        Volumes and secrets stay, so that the same nodes come back; with `volumes`, this host's volumes and the secrets
        are removed too.

        Raises:
            FleetError: Containers are left on this host.
        """
        if docker_swarm.exists(self._stack):
            change("stack", "rm", self._stack)
        namespace = f"label={NAMESPACE_LABEL}={self._stack}"

        def is_gone() -> bool:
            containers = docker_swarm.ask("ps", "--all", "--quiet", "--filter", namespace)
            return not containers and not docker_swarm.ask("network", "ls", "--quiet", "--filter", namespace)

        if not poll_until(is_gone, DOWN_TIMEOUT, POLL_SECONDS):
            raise FleetError("containers or networks of the stack are left", f"see: docker ps --filter {namespace}")
        if volumes:
            if names := docker_swarm.ask("volume", "ls", "--quiet", "--filter", namespace).split():
                change("volume", "rm", *names)
            remove_secrets(self._stack)

    def members(self) -> list[Member]:
        """Return the tasks that Swarm wants to run, on all hosts."""
        members = [_member(task) for task in docker_swarm.tasks(self._stack) if task.service in MEMBER_ROLES]
        return sorted(members, key=lambda member: (member.role, member.partition_id or 0))

    def node_statuses(self) -> list[NodeStatus]:
        """Return the status of each SuperNode: of those on this host their own, of the others what the SuperLink knows.

        It knows their node-ids, and no heartbeat, run or device.
        """
        found = self._reported_partitions()
        for container in self._containers("supernode"):
            with suppress(DockerException):  # it has just ended
                command = ["sh", "-c", f"cat {LEASE_FOLDER}/nodes/*.json"]
                if (status := parse_status(str(self._docker.container.execute(container, command)))) is not None:
                    found[status.partition_id] = status
        return [status for _, status in sorted(found.items())]

    def _reported_partitions(self) -> dict[int, NodeStatus]:
        """Return by partition-id what the SuperLink knows of its holder."""
        superlink = self._find_superlink()
        if superlink is None:
            return {}
        try:
            answer = str(self._docker.container.execute(superlink, ["cat", f"{RUN_FOLDER}/{NODES}"]))
            nodes: dict[str, int] = json.loads(answer)
        except (DockerException, ValueError):  # no node has called yet
            return {}
        return {
            partition_id: NodeStatus(partition_id, _host(partition_id + 1), 0, "-", int(node_id), online=True)
            for node_id, partition_id in nodes.items()
        }

    def memory(self) -> dict[str, int]:
        """Return the memory of the members on this host, which Docker measures without the page cache."""
        here = [container for role in MEMBER_ROLES for container in self._containers(role)]
        try:
            measured = self._docker.container.stats(here) if here else []
        except DockerException:  # a container has just ended
            return {}
        return {each.container_name.rpartition(".")[0]: int(each.memory_used) for each in measured}

    def root_certificate(self) -> bytes | None:
        """Return the CA's certificate, from the SuperLink's container.

        Raises:
            FleetError: The container is not running on this host.
        """
        try:
            certificate = self._docker.container.execute(self._superlink(), ["cat", f"{SERVER_FOLDER}/{CA}"])
        except DockerException as error:
            raise FleetError("the SuperLink has no certificate yet", "wait, then repeat the command") from error
        return f"{str(certificate).strip()}\n".encode()

    def logs(self, *, follow: bool) -> None:
        """Print the logs of all tasks, from all hosts."""
        options = ["--follow"] if follow else []
        command = ["docker", "service", "logs", "--tail", "100", *options]
        readers = [subprocess.Popen([*command, f"{self._stack}_{service}"]) for service in SERVICES]
        with suppress(KeyboardInterrupt):
            for reader in readers:
                reader.wait()
        for reader in readers:
            reader.terminate()
            reader.wait()

    def collect_results(self, destination: Path, run_id: str | None = None) -> None:
        """Copy results out of the SuperLink's volume, which is on this host.

        Raises:
            FleetError: The SuperLink's container is not running here, or `destination` cannot be written to.
        """
        copy_results(self._docker, self._superlink(), destination, run_id)

    def _superlink(self) -> Container:
        superlink = self._find_superlink()
        if superlink is None:
            raise FleetError(
                "the SuperLink's container is not running on this host",
                f"start the fleet: bouquet swarm deploy; or run the command on the host with the label "
                f"{SUPERLINK_LABEL}: docker service ps {self._stack}_superlink",
            )
        return superlink

    def _find_superlink(self) -> Container | None:
        return next(iter(self._containers("superlink")), None)

    def _containers(self, service: str) -> list[Container]:
        """Return the containers of a service that run on this host."""
        try:
            return self._docker.container.list(filters=[("label", f"{SERVICE_LABEL}={self._stack}_{service}")])
        except DockerException as error:
            raise FleetError("the containers could not be listed", docker_swarm.DOCKER_HINT) from error


def _member(task: Task) -> Member:
    is_supernode = task.service == "supernode"
    return Member(
        name=f"{task.stack}_{task.service}.{task.slot}",
        role=task.service,
        state=_state(task),
        partition_id=task.slot - 1 if is_supernode else None,
        host=_host(task.slot) if is_supernode else task.service,
    )


def _host(slot: int) -> str:
    """Return the host name of a SuperNode: `hostname` in the stack."""
    return f"supernode-{slot}"


def _state(task: Task) -> str:
    """Return a member's state. A task with a health check is running when it is healthy."""
    state = "healthy" if task.state == "running" else task.state
    return f"{state}, {task.error}" if task.error else state


def _tail(service: str) -> str:
    """Return the last lines of a service's log; `docker service logs` can hang while tasks come and go."""
    command = ["docker", "service", "logs", "--tail", str(LOG_TAIL_LINES), service]
    try:
        answer = probe(command, docker_swarm.DOCKER_HINT)
    except HostError as error:
        return str(error)
    return answer.stdout + answer.stderr


def _digest(*files: Path) -> str:
    content = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(content).hexdigest()[:12]
