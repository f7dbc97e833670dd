"""Checks before a start, so that a start that cannot succeed is refused with one line."""

from collections.abc import Collection, Iterator

from bouquet.errors import HostError
from bouquet.host.checks.cpu_features import cpu
from bouquet.host.checks.disk_space import by_disk, container_uses, disk, process_uses, unseen_disk
from bouquet.host.checks.docker_limits import ignored_limits, limits
from bouquet.host.checks.selinux import selinux
from bouquet.host.checks.user_files import check_ca_bundle, check_dataset, user_files
from bouquet.host.docker_info import DockerInfo, read_docker_info
from bouquet.host.readable import Reader
from bouquet.settings.host import HostSettings


def check_start(settings: HostSettings, packages: Collection[str], *, containers: bool) -> Iterator[str]:
    """Check what the fleet needs of this machine; yield one line for each thing to know before the start.

    Args:
        settings: The settings.
        packages: The names of the packages that the fleet installs.
        containers: Whether the fleet is containers.

    Raises:
        BouquetError: The fleet would not start.
    """
    docker = read_docker_info() if containers else None
    if docker is None or docker.is_here:
        cpu(packages)
    if settings.dataset is not None:
        check_dataset(settings.dataset, reader_of(docker))
    user_files(settings, reader_of(docker))
    settings.node_config.check_partitions(settings.supernodes)
    for group in by_disk(process_uses(settings) if docker is None else container_uses(settings, docker)):
        disk(group)
    if docker is not None:
        check_ca_bundle()
        limits(docker, settings)
        try:
            selinux(docker, settings)
            problem = ""
        except HostError as error:  # a warning: an override may turn labels off (security_opt)
            problem = f"WARNING: {error}"
        yield from (line for line in (ignored_limits(docker), unseen_disk(docker), problem) if line)


def reader_of(docker: DockerInfo | None) -> Reader:
    """Return who reads the user's files: the containers' user, or for processes (None) the current user."""
    if docker is None:
        return Reader(in_container=False)
    return Reader(in_container=True, maps_uids=docker.maps_uids, modes_apply=docker.is_here)
