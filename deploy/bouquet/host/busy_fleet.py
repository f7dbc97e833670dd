"""A fleet has the packages of one app at a time. Replacing them would end the runs that are in progress."""

import shlex

from bouquet.errors import FleetError
from bouquet.host.endpoint import Endpoint
from bouquet.host.fleet.base import Fleet
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.host.packages.package_list import PackageList
from bouquet.host.run import CALL_TIMEOUT, stop_command
from bouquet.settings.env import MAX_PORT
from bouquet.settings.host import HostSettings

PORT_STEP = 100
"""The ports of a second fleet are as far from those of the first."""


def refuse_other_packages(fleet: Fleet, packages: PackageList, settings: HostSettings) -> None:
    """Refuse to replace the packages of a running fleet while it has a run in progress.

    Args:
        fleet: The fleet.
        packages: The packages that the app needs.
        settings: The settings.

    Raises:
        FleetError: The fleet has other packages, and a run in progress.
    """
    if fleet.packages() in (None, packages.digest):
        return
    try:
        endpoint = Endpoint.of(fleet, settings.control_port)
        with endpoint.client() as client:
            runs = client.list_runs(CALL_TIMEOUT)
    except FleetError:
        return  # a SuperLink that does not answer: the start repairs it
    in_progress = sorted((run for run in runs if not run.status.startswith("finished")), key=lambda run: run.submitted)
    if in_progress:
        run_id = in_progress[0].run_id
        more = f" (and {len(in_progress) - 1} more)" if len(in_progress) > 1 else ""
        raise FleetError(
            f"APP={packages.app}: its packages are not those of the fleet, and run {run_id}{more} is in progress on it",
            f"wait for the run, or stop it: {stop_command(run_id, endpoint, settings.flower_home)}; or start a second "
            f"fleet: {second_fleet(fleet, settings)}; to resize this fleet, set APP to the folder of its app",
        )


def second_fleet(fleet: Fleet, settings: HostSettings) -> str:
    """Return the settings, as a shell takes them, that start a fleet beside this one."""
    name, value = (
        ("BOUQUET_HOME", f"{settings.home}-2")
        if isinstance(fleet, ProcessFleet)
        else ("COMPOSE_PROJECT_NAME", f"{settings.compose_project}-2")
    )
    control_port, fleet_port = _other_port(settings.control_port), _other_port(settings.fleet_port)
    return f"{name}={shlex.quote(value)} CONTROL_PORT={control_port} FLEET_PORT={fleet_port}"


def _other_port(port: int) -> int:
    return port + PORT_STEP if port + PORT_STEP <= MAX_PORT else port - PORT_STEP
