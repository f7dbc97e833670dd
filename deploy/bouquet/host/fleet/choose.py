"""Which fleet this machine can run: containers where Docker answers, otherwise local processes."""

import os
import shutil

from bouquet.errors import SettingError
from bouquet.host.fleet.base import Fleet
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.host.swarm import docker_swarm
from bouquet.probing import probe
from bouquet.settings.host import HostSettings

HUNG_HINT = "restart Docker, or run the fleet as local processes: FLEET=processes"


def docker_answers() -> bool:
    """Whether there is a `docker` command whose daemon answers.

    Raises:
        HostError: The daemon accepts the question and does not answer. Local processes would be the wrong choice
            then: a fleet of containers may be running.
    """
    if shutil.which("docker") is None:
        return False
    host = os.environ.get("DOCKER_HOST")
    hint = f"{HUNG_HINT} (DOCKER_HOST={host})" if host else HUNG_HINT
    if probe(["docker", "version"], hint).returncode:
        return False
    probe(["docker", "ps", "--quiet"], hint)  # hangs with a container that hangs, while `docker version` answers
    return True


def choose_fleet(settings: HostSettings) -> tuple[Fleet, str]:
    """Return the fleet that fits this machine, and one line that says which and why.

    Raises:
        SettingError: `FLEET=containers` or `FLEET=swarm`, and Docker does not answer.
        HostError: Docker hangs.
    """
    processes = ProcessFleet(settings)
    if settings.fleet == "auto" and processes.members():
        return processes, "local processes, because they are running"
    if settings.fleet == "processes":
        return processes, "local processes, because FLEET=processes"
    if docker_answers():
        # Imported here: its library is not needed without Docker.
        from bouquet.host.fleet.compose import ComposeFleet  # noqa: PLC0415
        from bouquet.host.fleet.swarm import SwarmFleet  # noqa: PLC0415

        if settings.fleet == "swarm":
            return SwarmFleet(settings), "tasks of a Swarm, because FLEET=swarm"
        if settings.fleet == "auto" and docker_swarm.exists(settings.compose_project):
            return SwarmFleet(settings), f"tasks of a Swarm, because it has the stack {settings.compose_project}"
        return ComposeFleet(settings), "containers, because Docker answers"
    if settings.fleet in ("containers", "swarm"):
        raise SettingError(
            "FLEET",
            settings.fleet,
            "no Docker daemon answers here",
            "start Docker, or run the fleet as local processes: FLEET=processes",
        )
    return processes, "local processes, because no Docker daemon answers"
