"""Whether this machine can run the fleet: `bouquet doctor` prints a line for each check, ok or how to fix it.

A check returns what it found, or raises an error that names the problem and the fix. The errors are those that
`bouquet up` would end with, from the same functions; here they are all shown at once, before anything starts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial

from bouquet.errors import BouquetError
from bouquet.host.bootstrap import compose_plugin
from bouquet.host.checks.certificate_expiry import certificates
from bouquet.host.checks.clock import clock
from bouquet.host.checks.disk_space import disk
from bouquet.host.checks.docker_engine import compose, docker
from bouquet.host.checks.fleet_members import nodes
from bouquet.host.checks.gpu_devices import gpus
from bouquet.host.checks.memory import memory
from bouquet.host.checks.published_ports import ports
from bouquet.host.checks.training_data import data
from bouquet.host.fleet.choose import choose_fleet
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.host.hub import probe_hub
from bouquet.settings.host import HostSettings


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


def run_checks(checks: Mapping[str, Callable[[], str]]) -> Iterator[CheckResult]:
    """Run the checks one after the other and yield their results; a failed check does not stop the others."""
    for name, check in checks.items():
        try:
            yield CheckResult(name, True, check())
        except BouquetError as error:
            yield CheckResult(name, False, str(error))
        except Exception as error:
            yield CheckResult(name, False, f"unexpected {type(error).__name__}: {' '.join(str(error).split())}")


def select_checks(settings: HostSettings) -> dict[str, Callable[[], str]]:
    """Return the checks that apply to this machine and a fleet with these settings, by name."""
    fleet, why = choose_fleet(settings)
    containers = not isinstance(fleet, ProcessFleet)
    up = bool(fleet.members()) if not containers or not compose_plugin.missing_plugins() else False
    ask_hub = cache(partial(probe_hub, settings.offline))
    checks: dict[str, Callable[[], str]] = {"fleet": lambda: f"{settings.supernodes} SuperNodes as {why}"}
    if containers:
        checks |= {"docker": docker, "compose": compose}
    checks |= {
        "memory": partial(memory, settings.supernodes, up),
        "disk": disk,
        "ports": partial(ports, settings, up),
        "gpus": partial(gpus, settings, containers),
        "data": partial(data, settings.dataset, ask_hub),
        "clock": partial(clock, ask_hub),
    }
    checks["certificates"] = partial(certificates, settings, up, datetime.now(UTC))
    if up:
        checks["nodes"] = partial(nodes, fleet, settings.supernodes)
    return checks
