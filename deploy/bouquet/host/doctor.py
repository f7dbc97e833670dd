"""Whether this machine can run the fleet: `bouquet doctor` prints a line for each check, ok or how to fix it.

A check returns what it found, or raises an error that names the problem and the fix. The errors are those that
`bouquet up` would end with, from the same functions; here they are all shown at once, before anything starts.
"""

import ctypes
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

import psutil

from bouquet.errors import BouquetError, FleetError, HostError
from bouquet.gpu import nvidia
from bouquet.gpu import plan as gpu
from bouquet.host import preflight
from bouquet.host.bootstrap import compose_plugin
from bouquet.host.connection import read_connection
from bouquet.host.fleet.base import Fleet
from bouquet.host.fleet.choose import choose_fleet
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.host.hub import HubAnswer, probe_hub
from bouquet.settings.host import PROJECT, HostSettings

MIB = 1024**2
SUPERLINK_MIB, SUPERNODE_MIB = 800, 700
"""MiB of memory that each uses during a run of the app: slightly more than measured."""
MAX_CLOCK_AHEAD_SECONDS, MAX_CLOCK_BEHIND_SECONDS = 3.0, 200.0
"""Limits for the clock, with a margin: the SuperLink refuses a SuperNode that is 5 s ahead or 305 s behind."""
TLS_TIMEOUT = 5.0
RENEW_DAYS = 14
"""Days before its end from which on a certificate counts as a problem."""
TIME_ERROR = 5
"""adjtimex(2): nothing synchronizes the clock."""


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


def docker() -> str:
    """Check that Docker's daemon answers; return its version."""
    answer = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise HostError(f"Docker: {answer.stderr.strip()}", "start Docker, or give this user permission to use it")
    return f"{answer.stdout.strip()} answers"


def compose() -> str:
    """Check that Compose v2 and buildx are installed, or that `bouquet up` can install them."""
    if not (missing := compose_plugin.missing_plugins()):
        return "v2 and buildx found"
    compose_plugin.check_installable(missing)
    return f"{' and '.join(missing)} missing: `make up` installs them from Debian 13's packages"


def memory(supernodes: int, up: bool) -> str:
    """Check that so many nodes can train in the available memory; a fleet that is up already uses its part."""
    needed = SUPERLINK_MIB + supernodes * SUPERNODE_MIB
    available = psutil.virtual_memory().available // MIB
    message = f"{available} MiB available, {supernodes} SuperNodes use about {needed} MiB"
    if up:
        return f"{message}; the running fleet has its memory already"
    if available < needed:
        fit = (available - SUPERLINK_MIB) // SUPERNODE_MIB
        raise HostError(f"memory: {message}", f"{fit} fit: SUPERNODES={fit}" if fit > 0 else "free some memory")
    return message


def disk() -> str:
    """Check that the images, or the Python environment, and a run fit on the disk."""
    preflight.check_disk(PROJECT)
    return f"at least {preflight.NEEDED_GIB} GiB free under {PROJECT}"


def ports(settings: HostSettings, up: bool) -> str:
    """Check that the fleet's ports are free, or used by the fleet itself."""
    names = f"{settings.control_port} (CONTROL_PORT), {settings.fleet_port} (FLEET_PORT)"
    if up:
        return f"{names}: used by the running fleet"
    preflight.check_ports(settings)
    return f"{names}: free"


def gpus(settings: HostSettings, containers: bool) -> str:
    """Check that the nodes fit on the GPUs; without GPUs they compute on the CPU."""
    shares = nvidia.for_containers if containers else nvidia.for_processes
    lines = gpu.summary(*shares(settings.gpus, settings.supernodes))
    return "; ".join(line.removeprefix("GPUs:").strip() for line in lines)


def data(dataset: Path | None, ask_hub: Callable[[], HubAnswer]) -> str:
    """Check that there is data to train on: from a folder, from the hub, or the shipped sample."""
    if dataset is not None:
        if not any(dataset.rglob("*.parquet")):
            raise HostError(
                f"DATASET={dataset}: there is no .parquet file in this folder",
                "give a folder in the layout of uoft-cs/cifar10, or leave DATASET out",
            )
        return f"{dataset} (DATASET)"
    if problem := ask_hub().problem:
        return f"the shipped sample, because {problem}; for all of CIFAR-10: DATASET=path/to/cifar10"
    return "uoft-cs/cifar10, the hub answers"


def clock(ask_hub: Callable[[], HubAnswer], synchronized: Callable[[], bool] | None = None) -> str:
    """Check the clock. The SuperLink refuses nodes whose clock is wrong, and certificates have an end.

    Args:
        ask_hub: Asks the hub for its clock.
        synchronized: Whether NTP synchronizes this clock, in case the hub does not answer; None to ask the kernel.
    """
    ahead = ask_hub().clock_ahead_seconds
    if ahead is None:
        kernel = (synchronized or clock_is_synchronized)()
        state = "synchronized by NTP" if kernel else "not synchronized by NTP, which nodes on other machines need"
        return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, {state}"
    if not -MAX_CLOCK_BEHIND_SECONDS < ahead < MAX_CLOCK_AHEAD_SECONDS:
        raise HostError(
            f"the clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the hub's",
            "synchronize it: timedatectl set-ntp true",
        )
    if abs(ahead) <= MAX_CLOCK_AHEAD_SECONDS:
        return f"within {MAX_CLOCK_AHEAD_SECONDS:g} s of the hub's"
    return f"{-ahead:.0f} s behind the hub's"


def clock_is_synchronized() -> bool:
    """Whether the kernel reports that something, such as NTP, synchronizes its clock."""
    timex = ctypes.create_string_buffer(512)  # a struct timex of zeros asks without a change
    return ctypes.CDLL(None).adjtimex(timex) not in (-1, TIME_ERROR)


def nodes(fleet: Fleet, supernodes: int) -> str:
    """Check that the running fleet is healthy."""
    bad = [f"{member.name} ({member.state})" for member in fleet.members() if not member.healthy]
    if bad:
        raise FleetError(f"not healthy: {', '.join(bad)}", "full logs: make logs")
    return f"all {supernodes} SuperNodes and the SuperLink are healthy"


def certificates(settings: HostSettings, up: bool, now: datetime) -> str:
    """Check that the connection's CA, and the certificate that a running SuperLink shows, do not end soon."""
    try:
        _, ca = read_connection(settings.flower_home)
    except FleetError:
        return "none yet: `make up` writes the connection"
    if ca is None:
        return "none: the connection is without TLS"
    try:
        messages = [f"the CA is valid until {valid_until(f'the CA {ca}', ca.read_bytes(), now)}"]
        if up:
            shown = ssl.get_server_certificate(("127.0.0.1", settings.control_port), timeout=TLS_TIMEOUT)
            end = valid_until("the certificate of the SuperLink", shown.encode(), now)
            messages.append(f"the SuperLink's certificate until {end}")
    except OSError as error:
        raise HostError(
            f"TLS at port {settings.control_port} with {ca}: {error}", "start the fleet again: make up"
        ) from error
    return ", ".join(messages)


def valid_until(name: str, pem: bytes, now: datetime) -> str:
    """Return the day on which a certificate ends.

    Args:
        name: What to call the certificate in an error.
        pem: The certificate.
        now: The current time.

    Raises:
        HostError: It ends within `RENEW_DAYS`, or it is not a certificate.
    """
    from cryptography import x509  # noqa: PLC0415  the import is slow, and only this check needs it

    try:
        end = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except ValueError as error:
        raise HostError(f"{name}: not a certificate ({error})", "replace it: make up") from error
    days = (end - now).days
    if days < RENEW_DAYS:
        problem = f"ended on {end:%Y-%m-%d}" if days < 0 else f"ends on {end:%Y-%m-%d}, in {days} days"
        raise HostError(f"{name} {problem}", "renew it: make down up")
    return f"{end:%Y-%m-%d}"
