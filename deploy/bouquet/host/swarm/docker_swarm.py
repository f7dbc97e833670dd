"""Questions to Docker about its Swarm: this host, the other nodes, the tasks of a stack."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from bouquet.errors import FleetError
from bouquet.host.swarm.stack_names import SUPERLINK_LABEL
from bouquet.probing import docker_reason, probe

GPU_KIND = "NVIDIA-GPU"
"""The name of a GPU among the generic resources of a node (`node-generic-resources` of its daemon)."""
COMMAND_TIMEOUT = 120.0
"""Seconds that a change may take; a question takes `probing.PROBE_TIMEOUT`."""
DOCKER_HINT = "check Docker: make doctor"
MANAGER_HINT = "run it on a manager of the Swarm; to create a Swarm of this host: docker swarm init"


@dataclass(frozen=True)
class Task:
    """One task of a stack's service, which Swarm wants to run.

    Attributes:
        id: Swarm's id of the task.
        stack: The name of the stack.
        service: The service, without the name of the stack.
        slot: Its number within the service, from 1.
        host: The host that it is assigned to; empty for none.
        image: The image.
        state: For example `running`, which for a service with a health check means healthy, or `pending`.
        error: Why it does not run; empty for no reason.
    """

    id: str
    stack: str
    service: str
    slot: int
    host: str
    image: str
    state: str
    error: str

    @classmethod
    def parse(cls, stack: str, line: str) -> Self:
        """Return the task in a line of `docker stack ps --format '{{json .}}'`."""
        found = json.loads(line)
        name, _, slot = found["Name"].removeprefix(f"{stack}_").rpartition(".")
        return cls(
            id=found["ID"],
            stack=stack,
            service=name,
            slot=int(slot),
            host=found["Node"],
            image=found["Image"],
            state=found["CurrentState"].partition(" ")[0].lower(),
            error=found["Error"].strip('"'),
        )


@dataclass(frozen=True)
class SwarmNode:
    """One host of the Swarm.

    Attributes:
        id: Swarm's id of the host.
        name: Its host name.
        runs_superlink: Whether it has the label of the SuperLink's host.
        gpus: How many GPUs its daemon offers.
    """

    id: str
    name: str
    runs_superlink: bool
    gpus: int

    @classmethod
    def parse(cls, found: dict[str, Any]) -> Self:
        """Return the node in an answer of `docker node inspect`."""
        description = found["Description"]
        resources = description.get("Resources", {}).get("GenericResources") or []
        named = [each for each in resources if each.get("NamedResourceSpec", {}).get("Kind") == GPU_KIND]
        counted = [each.get("DiscreteResourceSpec", {}) for each in resources]
        return cls(
            id=found["ID"],
            name=description["Hostname"],
            runs_superlink=found["Spec"].get("Labels", {}).get(SUPERLINK_LABEL) == "true",
            gpus=len(named) + sum(int(each["Value"]) for each in counted if each.get("Kind") == GPU_KIND),
        )


def ask(*arguments: str) -> str:
    """Return what a `docker` command prints.

    Raises:
        FleetError: It fails.
    """
    return _output(arguments, None)


def change(*arguments: str) -> str:
    """Run a `docker` command that changes something, which may take longer; return what it prints.

    Raises:
        FleetError: It fails.
    """
    return _output(arguments, COMMAND_TIMEOUT)


def is_manager() -> bool:
    """Whether this Docker is a manager of a Swarm."""
    answer = probe(["docker", "info", "--format", "{{.Swarm.ControlAvailable}}"], DOCKER_HINT)
    return answer.returncode == 0 and answer.stdout.strip() == "true"


def this_node() -> str:
    """Return Swarm's id of this host.

    Raises:
        FleetError: This Docker is not a manager of a Swarm.
    """
    if not is_manager():
        raise FleetError("this Docker is not a manager of a Swarm", MANAGER_HINT)
    return ask("info", "--format", "{{.Swarm.NodeID}}")


def nodes() -> list[SwarmNode]:
    """Return the hosts of the Swarm; call it on a manager."""
    ids = ask("node", "ls", "--quiet").split()
    return [SwarmNode.parse(found) for found in json.loads(ask("node", "inspect", *ids))]


def exists(stack: str) -> bool:
    """Whether the Swarm has a stack of this name; False where this Docker is not a manager."""
    command = ["docker", "service", "ls", "--quiet", "--filter", f"label=com.docker.stack.namespace={stack}"]
    answer = probe(command, DOCKER_HINT)
    return answer.returncode == 0 and bool(answer.stdout.strip())


def tasks(stack: str) -> list[Task]:
    """Return the tasks that Swarm wants to run for a stack; empty where there is no such stack.

    Raises:
        FleetError: This Docker is not a manager of a Swarm.
    """
    command = ("stack", "ps", "--no-trunc", "--format", "{{json .}}", "--filter", "desired-state=running", stack)
    answer = probe(["docker", *command], DOCKER_HINT)
    if answer.returncode and "nothing found in stack" not in answer.stderr:
        this_node()
        raise FleetError(f"the tasks could not be listed: {docker_reason(answer.stderr)}", DOCKER_HINT)
    return [Task.parse(stack, line) for line in answer.stdout.splitlines()]


def update_states(stack: str, services: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the state and the message of each service's last update; empty texts where there was none."""
    found = json.loads(ask("service", "inspect", *(f"{stack}_{name}" for name in services)))
    updates = {each["Spec"]["Name"].removeprefix(f"{stack}_"): each.get("UpdateStatus") or {} for each in found}
    return {name: (update.get("State", ""), update.get("Message", "")) for name, update in updates.items()}


def _output(arguments: Sequence[str], timeout_seconds: float | None) -> str:
    answer = probe(["docker", *arguments], DOCKER_HINT, timeout_seconds)
    if answer.returncode:
        raise FleetError(f"docker {' '.join(arguments[:2])}: {docker_reason(answer.stderr)}", DOCKER_HINT)
    return answer.stdout.strip()
