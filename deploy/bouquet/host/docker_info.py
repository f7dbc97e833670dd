"""What Docker's daemon says about itself: where it keeps its data, and what it can limit."""

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bouquet.errors import HostError
from bouquet.host.fleet.choose import HUNG_HINT
from bouquet.probing import probe


@dataclass(frozen=True)
class DockerInfo:
    """A part of `docker info`.

    Attributes:
        root: The folder with the images and volumes, as the daemon sees it.
        is_here: Whether the daemon sees the same files as this process. Docker Desktop's virtual machine and a daemon
            on another machine do not.
        maps_uids: Whether a uid in a container is another uid on the machine: rootless Docker, or userns-remap.
        has_selinux: Whether SELinux confines containers.
        limits_cpus: Whether containers can have a limit on CPUs. Docker refuses to start those that have one if not.
        ignored_limits: Other limits that Docker ignores here: `memory`, `pids`.
    """

    root: Path
    is_here: bool
    maps_uids: bool
    has_selinux: bool
    limits_cpus: bool
    ignored_limits: tuple[str, ...]

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """Return what the JSON of `docker info` says. What a version does not report counts as present."""
        options = {option.partition(",")[0] for option in answer.get("SecurityOptions") or []}
        flags = {"memory": "MemoryLimit", "pids": "PidsLimit"}
        no_cgroups = answer.get("CgroupDriver") == "none"  # rootless Docker with cgroup v1 ignores all limits
        return cls(
            root=Path(answer.get("DockerRootDir") or "/var/lib/docker"),
            is_here=(answer.get("Name"), answer.get("KernelVersion")) == (socket.gethostname(), os.uname().release),
            maps_uids=bool(options & {"name=rootless", "name=userns"}),
            has_selinux="name=selinux" in options,
            limits_cpus=answer.get("CpuCfsQuota") is not False,
            ignored_limits=tuple(name for name, flag in flags.items() if no_cgroups or answer.get(flag) is False),
        )


def read_docker_info() -> DockerInfo:
    """Ask Docker's daemon.

    Raises:
        HostError: The daemon does not answer.
    """
    answer = probe(["docker", "info", "--format", "{{json .}}"], HUNG_HINT)
    try:
        found = json.loads(answer.stdout)
    except ValueError:
        found = {}
    if answer.returncode or not found.get("ServerVersion"):  # the command succeeds without a daemon
        problem = answer.stderr.strip() or "; ".join(found.get("ServerErrors") or ["no answer"])
        raise HostError(f"Docker: {problem}", "start Docker, or give this user permission to use it")
    return DockerInfo.parse(found)
