"""What this machine can run: containers where there is Docker, otherwise local processes."""

import shutil
import subprocess

from bouquet.errors import SettingError
from bouquet.host.fleet.base import Fleet
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.settings.host import HostSettings


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
    processes = ProcessFleet(settings)
    if settings.fleet == "auto" and processes.members():
        return processes, "local processes, because they are running"
    if settings.fleet == "processes":
        return processes, "local processes, because FLEET=processes"
    if docker_answers():
        # Imported only here: without Docker nothing needs its library.
        from bouquet.host.fleet.compose import ComposeFleet  # noqa: PLC0415

        return ComposeFleet(settings), "containers, because Docker answers"
    if settings.fleet == "containers":
        raise SettingError(
            "FLEET",
            "containers",
            "no Docker daemon answers here",
            "start Docker, or run the fleet as local processes: FLEET=processes",
        )
    return processes, "local processes, because no Docker daemon answers"
