"""What `docker info --format '{{json .}}'` says, for tests."""

import json
import os
import socket
from pathlib import Path
from typing import Any

from bouquet.host.docker_info import DockerInfo


def answer(root: Path | str = "/var/lib/docker", **changed: Any) -> dict[str, Any]:
    """Return what Docker 20.10 on this machine says, with some values changed."""
    return {
        "ServerVersion": "20.10.24",
        "Name": socket.gethostname(),
        "KernelVersion": os.uname().release,
        "DockerRootDir": str(root),
        "CpuCfsQuota": True,
        "MemoryLimit": True,
        "PidsLimit": True,
        "CgroupDriver": "cgroupfs",
        "SecurityOptions": ["name=seccomp,profile=default"],
        **changed,
    }


def docker_info(root: Path | str = "/var/lib/docker", **changed: Any) -> DockerInfo:
    """Return the parsed answer."""
    return DockerInfo.parse(answer(root, **changed))


def docker_script(root: Path | str = "/var/lib/docker", **changed: Any) -> str:
    """Return the body of a `docker` command that knows `info` and `compose config`, and succeeds at anything else."""
    info = json.dumps(answer(root, **changed))
    return f"""
case "$*" in
    info*) echo '{info}' ;;
    *" config"*) echo '{{"name": "bouquet"}}' ;;
esac"""
