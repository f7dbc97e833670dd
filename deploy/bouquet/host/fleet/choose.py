"""Which fleet this machine can run: containers where Docker answers, otherwise local processes."""

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
    answer = subprocess.run(["docker", "version"], capture_output=True, check=False, timeout=60)
    return answer.returncode == 0


def choose_fleet(settings: HostSettings) -> tuple[Fleet, str]:
    """Return the fleet that fits this machine, and one line that says which and why.

    Raises:
        SettingError: `FLEET=containers`, and Docker does not answer.
    """
    processes = ProcessFleet(settings)
    if settings.fleet == "auto" and processes.members():
        return processes, "local processes, because they are running"
    if settings.fleet == "processes":
        return processes, "local processes, because FLEET=processes"
    if docker_answers():
        # Imported here: its library is not needed without Docker.
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
