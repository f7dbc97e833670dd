"""Whether this machine can run the fleet: `make doctor`, a line for each thing looked at, ok or what to do.

A check returns what it found, or raises the error that names what is wrong and what mends it: the same errors, from
the same functions, that `make up` would end with, but all of them at once and before anything is started.
"""

import ctypes
import email.utils
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bouquet.errors import BouquetError, FleetError, HostError
from bouquet.gpu import nvidia
from bouquet.gpu import plan as gpu
from bouquet.host import preflight
from bouquet.host.bootstrap import compose_plugin
from bouquet.host.connection import read_connection
from bouquet.host.fleet import choose as host
from bouquet.host.fleet.base import Fleet
from bouquet.settings.host import PROJECT, HostSettings

MIB = 1024**2
SUPERLINK_MIB, SUPERNODE_MIB = 800, 700
"""Memory that each takes during a run of the app: a little over what was measured."""
HUB = "https://huggingface.co/api/datasets/uoft-cs/cifar10"
HUB_SECONDS = 5.0
AHEAD, BEHIND = 3.0, 200.0
"""Seconds by which a SuperNode's clock may be wrong before the SuperLink turns it away."""
RENEW_DAYS = 14
TIME_ERROR = 5  # adjtimex(2): the clock is not kept by anything


@dataclass(frozen=True)
class Finding:
    """What came of one check."""

    name: str
    ok: bool
    says: str

    def __str__(self) -> str:
        return f"{'ok' if self.ok else 'WRONG':<6} {self.name:<13} {self.says}"


def examine(checks: Mapping[str, Callable[[], str]]) -> Iterator[Finding]:
    """Run the checks, one after the other."""
    for name, check in checks.items():
        try:
            yield Finding(name, True, check())
        except BouquetError as error:
            yield Finding(name, False, str(error))


def checks(settings: HostSettings) -> dict[str, Callable[[], str]]:
    """Return the checks of this machine, for a fleet with these settings."""
    fleet, why = host.choose_fleet(settings)
    containers = why.startswith("containers")
    up = bool(fleet.members()) if not containers or not compose_plugin.missing() else False
    dated = Hub(settings.offline)
    chosen: dict[str, Callable[[], str]] = {"fleet": lambda: f"{settings.supernodes} SuperNodes as {why}"}
    if containers:
        chosen |= {"docker": docker, "compose": compose}
    chosen |= {
        "memory": partial(memory, settings.supernodes, up),
        "disk": disk,
        "ports": partial(ports, settings, up),
        "gpus": partial(gpus, settings, containers),
        "data": partial(data, settings.dataset, dated),
        "clock": partial(clock, dated),
    }
    chosen["certificates"] = partial(certificates, settings, up, datetime.now(UTC))
    if up:
        chosen["nodes"] = partial(nodes, fleet, settings.supernodes)
    return chosen


def docker() -> str:
    """Docker's daemon answers."""
    asked = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise HostError(f"Docker: {asked.stderr.strip()}", "start Docker, or give this user the right to use it")
    return f"{asked.stdout.strip()} answers"


def compose() -> str:
    """Compose v2 and buildx are there, or `make up` can get them."""
    if not (missing := compose_plugin.missing()):
        return "v2 and buildx found"
    if lacks := compose_plugin.lacking():
        problem = f"{' and '.join(missing)} missing, and no Debian to take them from ({lacks} missing)"
        raise HostError(problem, compose_plugin.BY_HAND)
    return f"{' and '.join(missing)} missing: `make up` takes them from Debian 13's packages"


def memory(supernodes: int, up: bool, meminfo: Path = Path("/proc/meminfo")) -> str:
    """There is memory for so many nodes that train."""
    need = SUPERLINK_MIB + supernodes * SUPERNODE_MIB
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) // 1024
    says = f"{free} MiB free, {supernodes} SuperNodes take about {need} MiB"
    if up:
        return f"{says}; the fleet is up and has its memory"
    if free < need:
        fit = (free - SUPERLINK_MIB) // SUPERNODE_MIB
        hint = f"{fit} fit: SUPERNODES={fit}" if fit > 0 else "end what takes memory"
        raise HostError(f"memory: {says}", hint)
    return says


def disk() -> str:
    """There is room for the images, or the environment, and a run."""
    preflight.check_disk(PROJECT)
    return f"at least {preflight.NEEDED_GIB} GiB free under {PROJECT}"


def ports(settings: HostSettings, up: bool) -> str:
    """The fleet's ports are free, or the fleet's."""
    named = f"{settings.control_port} (CONTROL_PORT), {settings.fleet_port} (FLEET_PORT)"
    if up:
        return f"{named}: the fleet's"
    preflight.check_ports(settings)
    return f"{named}: free"


def gpus(settings: HostSettings, containers: bool) -> str:
    """The nodes fit on the GPUs, where there are any."""
    choose = nvidia.for_containers if containers else nvidia.for_processes
    lines = gpu.summary(*choose(settings.gpus, settings.supernodes))
    return "; ".join(line.removeprefix("GPUs:").strip() for line in lines)


class Hub:
    """The dataset hub, asked once, and its clock."""

    def __init__(self, offline: bool, url: str = HUB) -> None:
        self._offline = offline
        self._url = url
        self._answer: tuple[str, float | None] | None = None

    def ask(self) -> tuple[str, float | None]:
        """Return why it does not answer, or an empty text; and by how many seconds this clock is ahead of its."""
        if self._answer is None:
            self._answer = ("HF_HUB_OFFLINE=1", None) if self._offline else self._ask()
        return self._answer

    def _ask(self) -> tuple[str, float | None]:
        request = urllib.request.Request(self._url, method="HEAD")  # noqa: S310  https by its making
        try:
            with urllib.request.urlopen(request, timeout=HUB_SECONDS) as response:  # noqa: S310
                date = response.headers["Date"]
        except (OSError, urllib.error.URLError) as error:
            return f"the hub does not answer ({getattr(error, 'reason', error)})", None
        ahead = time.time() - email.utils.parsedate_to_datetime(date).timestamp() if date else None
        return "", ahead


def data(dataset: Path | None, hub: Hub) -> str:
    """There are images to train on: a folder's, the hub's, or the sample's."""
    if dataset is not None:
        if not any(dataset.rglob("*.parquet")):
            raise HostError(
                f"DATASET={dataset}: there is no .parquet file in it",
                "give a folder in the layout of uoft-cs/cifar10, or leave DATASET out",
            )
        return f"{dataset} (DATASET)"
    trouble, _ = hub.ask()
    if trouble:
        return f"the shipped sample, as {trouble}; for all of CIFAR-10: DATASET=path/to/cifar10"
    return "uoft-cs/cifar10, the hub answers"


def clock(hub: Hub, kept: Callable[[], bool] | None = None) -> str:
    """The clock is right: a SuperLink turns away nodes whose clock differs too much, and certificates have an end."""
    _, ahead = hub.ask()
    if ahead is None:
        by = "kept by NTP" if (kept or clock_is_kept)() else "not kept by NTP, which matters to nodes on other machines"
        return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, {by}"
    if not -BEHIND < ahead < AHEAD:
        raise HostError(
            f"the clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the hub's",
            "set it, and keep it: timedatectl set-ntp true",
        )
    return f"within {AHEAD:g} s of the hub's" if abs(ahead) <= AHEAD else f"{-ahead:.0f} s behind the hub's"


def clock_is_kept() -> bool:
    """Whether the kernel says that something, such as NTP, keeps its clock."""
    timex = ctypes.create_string_buffer(512)  # struct timex, all zero: only read
    return ctypes.CDLL(None).adjtimex(timex) not in (-1, TIME_ERROR)


def nodes(fleet: Fleet, supernodes: int) -> str:
    """The fleet that is up is healthy."""
    bad = [f"{member.name} ({member.state})" for member in fleet.members() if not member.healthy]
    if bad:
        raise FleetError(f"not healthy: {', '.join(bad)}", "the whole story: make logs")
    return f"all {supernodes} SuperNodes and the SuperLink are healthy"


def certificates(settings: HostSettings, up: bool, now: datetime) -> str:
    """What TLS rests on is good for a while yet: the CA of the connection, and what the SuperLink shows."""
    try:
        _, authority = read_connection(settings.flower_home)
    except FleetError:
        return "none yet: `make up` writes the connection"
    if authority is None:
        return "none: the connection is without TLS"
    try:
        said = [f"the CA's {lasts(f'the CA {authority}', authority.read_bytes(), now)}"]
        if up:
            shown = ssl.get_server_certificate(("127.0.0.1", settings.control_port), timeout=HUB_SECONDS)
            said.append(f"the SuperLink's {lasts('the certificate of the SuperLink', shown.encode(), now)}")
    except OSError as error:
        raise HostError(
            f"TLS at port {settings.control_port} with {authority}: {error}", "start the fleet anew: make up"
        ) from error
    return ", ".join(said)


def lasts(what: str, pem: bytes, now: datetime) -> str:
    """Return until when a certificate is good, if that is a while yet."""
    from cryptography import x509  # noqa: PLC0415  a quarter of a second that only this check takes

    try:
        end = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except ValueError as error:
        raise HostError(f"{what}: no certificate ({error})", "have it made anew: make up") from error
    left = (end - now).days
    if left < RENEW_DAYS:
        problem = f"ended on {end:%Y-%m-%d}" if left < 0 else f"ends on {end:%Y-%m-%d}, in {left} days"
        raise HostError(f"{what} {problem}", "have it renewed: make down up")
    return f"until {end:%Y-%m-%d}"
