"""Whether this machine can run the fleet: `bouquet doctor` prints a line for each check, ok or how to fix it.

A check returns what it found, or raises an error that names the problem and the fix. The errors are those that
`bouquet up` would end with, from the same functions; here they are all shown at once, before anything starts.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial

from bouquet.errors import BouquetError
from bouquet.gpu import nvidia
from bouquet.host import preflight
from bouquet.host.bootstrap import compose_plugin
from bouquet.host.checks.certificate_expiry import certificates
from bouquet.host.checks.clock import clock
from bouquet.host.checks.cpu_features import cpu
from bouquet.host.checks.disk_space import Use, by_disk, container_uses, disk, process_uses, unseen_disk, user_uses
from bouquet.host.checks.docker_engine import compose, docker
from bouquet.host.checks.docker_limits import limits
from bouquet.host.checks.fleet_members import nodes
from bouquet.host.checks.flwr_cli import flwr_cli
from bouquet.host.checks.flwr_connection import check_connection
from bouquet.host.checks.gpu_devices import SharesOf, gpus
from bouquet.host.checks.http_proxies import http_proxies
from bouquet.host.checks.memory import memory
from bouquet.host.checks.partition_cache import cache_of_containers, cache_of_processes
from bouquet.host.checks.published_ports import ports
from bouquet.host.checks.selinux import selinux
from bouquet.host.checks.training_data import data
from bouquet.host.checks.user_files import user_files
from bouquet.host.checks.writable_folders import writable_folders
from bouquet.host.docker_info import read_docker_info
from bouquet.host.endpoint import Endpoint
from bouquet.host.fleet.base import Fleet
from bouquet.host.fleet.choose import choose_fleet
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.host.hub import probe_hub
from bouquet.host.packages.package_list import PackageList, package_list
from bouquet.host.readable import Reader
from bouquet.settings.host import HostSettings

Check = tuple[str, Callable[[], str]]
"""The name of a check, and a function that returns what it found or raises an error with the problem and the fix."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name: The check.
        ok: Whether it passed.
        message: What it found, or the problem and its fix.
    """

    name: str
    ok: bool
    message: str

    def __str__(self) -> str:
        return f"{'ok' if self.ok else 'FAILED':<6} {self.name:<13} {self.message}"


def run_checks(checks: Iterable[Check]) -> Iterator[CheckResult]:
    """Run the checks one after the other and yield their results; a failed check does not stop the others."""
    for name, check in checks:
        try:
            yield CheckResult(name, True, check())
        except BouquetError as error:
            yield CheckResult(name, False, str(error))
        except Exception as error:
            yield CheckResult(name, False, f"unexpected {type(error).__name__}: {' '.join(str(error).split())}")


def select_checks(settings: HostSettings) -> list[Check]:
    """Return the checks that apply to this machine and a fleet with these settings, in the order to run them.

    If Docker does not answer, one check fails with the reason, and the others that need Docker are left out.
    """
    try:
        fleet, why = choose_fleet(settings)
    except BouquetError as error:
        return [("fleet", partial(_fail, error)), *_without_docker(settings)]
    chosen = ("fleet", lambda: f"{settings.supernodes} SuperNodes as {why}")
    if isinstance(fleet, ProcessFleet):
        return [chosen, *_for_processes(settings, fleet)]
    return [chosen, *_for_containers(settings, fleet)]


def _for_processes(settings: HostSettings, fleet: Fleet) -> Iterator[Check]:
    up = bool(fleet.members())
    yield "ports", partial(ports, settings, up)
    reader = preflight.reader_of(None)
    yield from _for_any(settings, up, nvidia.shares, reader)
    yield from _for_app(settings, fleet)
    yield "files", partial(user_files, settings, reader)
    yield from _disks(lambda: process_uses(settings))
    yield "cache", partial(cache_of_processes, settings)
    if up:
        yield from _for_running(settings, fleet)


def _for_containers(settings: HostSettings, fleet: Fleet) -> Iterator[Check]:
    yield "docker", docker
    yield "compose", compose
    try:
        info = read_docker_info()
        up = bool(fleet.members()) if not compose_plugin.missing_plugins() else False
    except Exception as error:
        yield "containers", partial(_fail, error)
        yield from _without_docker(settings)
        return
    yield "limits", partial(limits, info, settings)
    yield "selinux", partial(selinux, info, settings)
    yield "ports", partial(ports, settings, up)
    reader = preflight.reader_of(info)
    yield from _for_any(settings, up, nvidia.for_containers, reader)
    yield from _for_app(settings, fleet, cpu_is_here=info.is_here)
    yield "files", partial(user_files, settings, reader)
    yield from _disks(lambda: container_uses(settings, info))
    if unseen := unseen_disk(info):
        yield "disk", lambda: unseen
    yield "cache", partial(cache_of_containers, settings)
    if up:
        yield from _for_running(settings, fleet)


def _for_running(settings: HostSettings, fleet: Fleet) -> Iterator[Check]:
    """Yield the checks of a fleet that is up."""
    yield "nodes", partial(nodes, fleet, settings.supernodes)
    yield "connection", lambda: check_connection(settings.flower_home, Endpoint.of(fleet, settings.control_port))


def _without_docker(settings: HostSettings) -> Iterator[Check]:
    """Yield the checks of a fleet of containers that need no Docker."""
    yield from _for_any(settings, False, nvidia.shares, None)
    yield from _for_app(settings, None)
    yield from _disks(lambda: user_uses(settings))


def _for_app(settings: HostSettings, fleet: Fleet | None, *, cpu_is_here: bool = True) -> Iterator[Check]:
    """Yield the checks of what the app needs; without a fleet, as on the CPU and any Python."""

    @cache
    def packages() -> PackageList:
        gpus = False
        if fleet is not None:
            with suppress(BouquetError):  # the check of the GPUs says so
                gpus = fleet.uses_gpus()
        return package_list(settings.app, settings, gpus=gpus, python=fleet.python() if fleet else None)

    def check_cpu() -> str:
        try:
            names = packages().names
        except BouquetError:  # the check of the packages says so
            names = frozenset()
        return cpu(names)

    yield "packages", lambda: f"{len(packages().names)} for the app in {settings.app}"
    if cpu_is_here:
        yield "cpu", check_cpu


def _for_any(settings: HostSettings, up: bool, shares: SharesOf, reader: Reader | None) -> Iterator[Check]:
    """Yield the checks that are the same for both kinds of fleet."""
    ask_hub = cache(partial(probe_hub, settings.offline))
    yield "memory", partial(memory, settings.supernodes, up)
    yield "gpus", partial(gpus, settings, shares)
    yield "data", partial(data, settings.dataset, ask_hub, reader, settings.hf_cache)
    yield "clock", partial(clock, ask_hub)
    yield "folders", partial(writable_folders, settings)
    yield "flwr", flwr_cli
    yield "proxies", http_proxies
    yield "certificates", partial(certificates, settings, up, datetime.now(UTC))


def _disks(uses: Callable[[], list[Use]]) -> Iterator[Check]:
    """Yield a check for each file system that the fleet writes to."""
    try:
        groups = by_disk(uses())
    except Exception as error:
        yield "disk", partial(_fail, error)
    else:
        yield from (("disk", partial(disk, group)) for group in groups)


def _fail(error: Exception) -> str:
    raise error
