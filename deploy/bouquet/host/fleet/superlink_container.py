"""What every fleet of containers reads from its SuperLink's container: its packages and its results."""

import tempfile
from pathlib import Path

from python_on_whales import Container, DockerClient
from python_on_whales.exceptions import DockerException

from bouquet.errors import FleetError
from bouquet.host.packages.package_list import LIST, UNKNOWN, list_digest
from bouquet.host.results_folder import COPY_HINT, incoming
from bouquet.record.run_folder import LATEST

RESULTS_IN_CONTAINER = "/var/lib/bouquet/results"
LIST_IN_CONTAINER = f"/opt/bouquet/{LIST}"


def read_tag(superlink: Container) -> str:
    """Return the tag of the SuperLink's image, which that of the SuperNodes has, too."""
    return str(superlink.config.image).partition("@")[0].rpartition(":")[2]


def read_packages(docker: DockerClient, superlink: Container) -> str:
    """Return the digest of the package list in the SuperLink's image."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            docker.container.copy((superlink, LIST_IN_CONTAINER), scratch)
        except DockerException:  # a fleet that an earlier version started
            return UNKNOWN
        return list_digest((Path(scratch) / LIST).read_bytes())


def copy_results(docker: DockerClient, superlink: Container, destination: Path, run_id: str | None) -> None:
    """Copy the results of one run, or of all runs, out of the SuperLink's volume. The current user owns the copies.

    Raises:
        FleetError: `destination` cannot be written to.
    """
    source = f"{RESULTS_IN_CONTAINER}/{run_id or '.'}"
    try:
        docker.container.execute(superlink, ["test", "-e", source])
    except DockerException:
        return  # a run that was rejected has no results
    with incoming(destination) as staged:
        try:
            docker.container.copy((superlink, source), staged)
        except DockerException as error:
            raise FleetError(
                f"RESULTS={destination}: the results could not be copied ({error.stderr})", COPY_HINT
            ) from error
        if run_id is not None:
            (staged / LATEST).symlink_to(run_id)
