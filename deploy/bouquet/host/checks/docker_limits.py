"""Whether Docker can set the limits of docker-compose.yml."""

from bouquet.errors import HostError
from bouquet.host.docker_info import DockerInfo
from bouquet.settings.host import CPU_LIMITS, HostSettings

MEMORY_SETTINGS = "SUPERLINK_MEMORY, SUPERNODE_MEMORY"
PIDS_SETTINGS = "SUPERLINK_PIDS, SUPERNODE_PIDS"


def limits(docker: DockerInfo, settings: HostSettings) -> str:
    """Check that Docker can set the containers' limits; return those that it sets and those that it ignores.

    Raises:
        HostError: Docker would refuse to start the containers, because it cannot limit CPUs.
    """
    limited = [name for name in CPU_LIMITS if name not in settings.without_cpu_limit]
    if not docker.limits_cpus and limited:
        raise HostError(
            "Docker cannot limit CPUs here: its kernel has no CFS quota",
            f"start the containers without that limit: {' '.join(f'{name}=0' for name in limited)}",
        )
    return ignored_limits(docker) or "Docker sets memory, CPU and process limits"


def ignored_limits(docker: DockerInfo) -> str:
    """Return one line about the limits that Docker ignores here; empty if it ignores none."""
    settings = {"memory": MEMORY_SETTINGS, "pids": PIDS_SETTINGS}
    if not docker.ignored_limits:
        return ""
    names = " and ".join(f"{name} limits ({settings[name]})" for name in docker.ignored_limits)
    return f"WARNING: Docker ignores {names}, because its kernel or rootless mode lacks these cgroups; use cgroup v2"
