"""What this machine can run: containers where there is Docker, otherwise local processes."""

import shutil
import subprocess

from deploy.errors import SettingError
from deploy.fleet import Fleet
from deploy.settings import HostSettings


def docker_answers() -> bool:
    """Whether there is a `docker` command whose daemon answers."""
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "version"], capture_output=True, check=False, timeout=60)
    return asked.returncode == 0


def choose_fleet(settings: HostSettings) -> tuple[Fleet, str]:
    """Choose what the fleet is made of.

    Returns
    -------
    tuple[Fleet, str]
        The fleet, and one line that says what was chosen and why.

    Raises
    ------
    SettingError
        `FLEET=containers`, and there is no Docker.
    """
    # Each launcher is imported only where it is used: without Docker nothing here needs its library.
    if settings.fleet != "processes" and docker_answers():
        from deploy.compose_fleet import ComposeFleet  # noqa: PLC0415

        why = "Docker answers" if settings.fleet == "auto" else "FLEET=containers"
        return ComposeFleet(settings), f"containers, because {why}"
    if settings.fleet == "containers":
        raise SettingError(
            "FLEET",
            "containers",
            "no Docker daemon answers here",
            "start Docker, or run the fleet as local processes: FLEET=processes",
        )
    from deploy.process_fleet import ProcessFleet  # noqa: PLC0415

    why = "no Docker daemon answers" if settings.fleet == "auto" else "FLEET=processes"
    return ProcessFleet(settings), f"local processes, because {why}"
