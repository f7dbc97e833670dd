"""Every setting that Bouquet reads from the environment, typed and checked: nothing else reads it.

`.env.example` documents them for users. A dataclass for each reader: the host's commands (`HostSettings`), the
one-shots that make certificates and enrol nodes, the SuperLink's entry point and the SuperNode's.
"""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from deploy.errors import SettingError

PROJECT = Path(__file__).resolve().parents[1]
"""The checkout, or in an image the folder that has `deploy/`."""

Environment = Mapping[str, str]

MAX_SUPERNODES = 1000
MAX_PORT = 65535


def _text(environment: Environment, name: str, default: str) -> str:
    # An empty value means "not given": Compose passes every setting on, given or not.
    return environment.get(name, "").strip() or default


def _whole(environment: Environment, name: str, default: int, low: int, high: int) -> int:
    text = _text(environment, name, str(default))
    hint = f"give a whole number from {low} to {high}, for example {name}={default}"
    try:
        value = int(text)
    except ValueError:
        raise SettingError(name, text, "not a whole number", hint) from None
    if not low <= value <= high:
        raise SettingError(name, text, "out of range", hint)
    return value


def _choice(environment: Environment, name: str, choices: tuple[str, ...]) -> str:
    text = _text(environment, name, choices[0])
    if text not in choices:
        raise SettingError(name, text, "not known", f"give one of: {', '.join(choices)}")
    return text


def _insecure(environment: Environment) -> bool:
    return _choice(environment, "INSECURE", ("0", "1")) == "1"


def _names(environment: Environment) -> tuple[str, ...]:
    return tuple(_text(environment, "SUPERLINK_NAMES", "").replace(",", " ").split())


def _fleet_bind(environment: Environment) -> str:
    text = _text(environment, "FLEET_BIND", "127.0.0.1")
    try:
        loopback = ipaddress.ip_address(text).is_loopback
    except ValueError:
        raise SettingError(
            "FLEET_BIND", text, "not an IP address", "give one of this machine, or 0.0.0.0 for all of them"
        ) from None
    if _insecure(environment) and not loopback:
        raise SettingError(
            "FLEET_BIND",
            text,
            "INSECURE=1 would let any machine join the fleet and read what it sends",
            "leave out one of the two",
        )
    return text


def _supernodes(environment: Environment) -> int:
    return _whole(environment, "SUPERNODES", 10, 1, MAX_SUPERNODES)


@dataclass(frozen=True)
class Directories:
    """Where a container, or a local process in its place, keeps what outlives a message."""

    run: Path
    """Readiness of this very process: never shared, need not outlive it."""
    state: Path
    """The SuperLink's SQLite database."""
    leases: Path
    """Locks on partition-ids, shared by all SuperNodes."""
    authority: Path
    """The fleet's own CA with its key: for who makes certificates, and nobody else."""
    server: Path
    """The SuperLink's certificate and key."""
    identities: Path
    """The CA's certificate, and the SuperNodes' keys."""

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read `BOUQUET_RUN_DIR`, `BOUQUET_STATE_DIR` and so on."""
        return cls(
            run=Path(_text(environment, "BOUQUET_RUN_DIR", "/run/bouquet")),
            state=Path(_text(environment, "BOUQUET_STATE_DIR", "/var/lib/bouquet/state")),
            leases=Path(_text(environment, "BOUQUET_LEASE_DIR", "/var/lib/bouquet/leases")),
            authority=Path(_text(environment, "BOUQUET_AUTHORITY_DIR", "/var/lib/bouquet/authority")),
            server=Path(_text(environment, "BOUQUET_SERVER_DIR", "/var/lib/bouquet/server")),
            identities=Path(_text(environment, "BOUQUET_IDENTITY_DIR", "/var/lib/bouquet/identities")),
        )


@dataclass(frozen=True)
class CertificateSettings:
    """What the maker of certificates needs to know; nothing that changes with the size of the fleet."""

    names: tuple[str, ...]
    """By which other machines reach the SuperLink."""
    own: Path | None
    """The operator's own certificates, as this process sees them."""
    own_shown: str
    """The same, as the operator gave it."""
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        shown = _text(environment, "CERTIFICATES", "")
        own = _text(environment, "BOUQUET_CERTIFICATES", shown)
        return cls(
            names=_names(environment),
            own=Path(own) if own else None,
            own_shown=shown or own,
            directories=Directories.read(environment),
        )


@dataclass(frozen=True)
class SetupSettings:
    """What the one-shot that enrols the SuperNodes needs to know."""

    supernodes: int
    insecure: bool
    control: str
    """The SuperLink's Control API."""
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        return cls(
            supernodes=_supernodes(environment),
            insecure=_insecure(environment),
            control=_text(environment, "CONTROL", "control:9093"),
            directories=Directories.read(environment),
        )


@dataclass(frozen=True)
class SuperLinkSettings:
    """What the SuperLink's entry point needs to know."""

    supernodes: int
    fleet_address: str
    control_address: str
    runtime_address: str
    insecure: bool
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        _fleet_bind(environment)  # where Docker publishes the Fleet API: not beyond loopback without TLS
        return cls(
            supernodes=_supernodes(environment),
            fleet_address=_text(environment, "FLEET_ADDRESS", "0.0.0.0:9092"),
            control_address=_text(environment, "CONTROL_ADDRESS", "0.0.0.0:9093"),
            # The Runtime API gives tasks and tokens to any peer: never beyond loopback.
            runtime_address=_text(environment, "RUNTIME_ADDRESS", "127.0.0.1:9091"),
            insecure=_insecure(environment),
            directories=Directories.read(environment),
        )


@dataclass(frozen=True)
class SuperNodeSettings:
    """What a SuperNode's entry point needs to know."""

    supernodes: int
    partition_id: int | None
    superlink: str
    superlink_max_wait: int
    dataset: str | None
    threads: int
    runtime_address: str
    insecure: bool
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        supernodes = _supernodes(environment)
        partition_id: int | None = None
        if _text(environment, "PARTITION_ID", ""):
            partition_id = _whole(environment, "PARTITION_ID", 0, 0, supernodes - 1)
        return cls(
            supernodes=supernodes,
            partition_id=partition_id,
            superlink=_text(environment, "SUPERLINK", "superlink:9092"),
            superlink_max_wait=_whole(environment, "SUPERLINK_MAX_WAIT", 300, 1, 86400),
            dataset=_text(environment, "BOUQUET_DATASET", "") or None,
            threads=_whole(environment, "TF_THREADS", share_of_cores(supernodes), 1, 1024),
            runtime_address=_text(environment, "RUNTIME_ADDRESS", "127.0.0.1:9094"),
            insecure=_insecure(environment),
            directories=Directories.read(environment),
        )


@dataclass(frozen=True)
class ServeSettings:
    """How the process that an entry point becomes has apps run."""

    executor: str
    """`warm`: a process per run, its framework imported before (deploy/executor); `stock`: Flower's own."""
    preload: tuple[str, ...]
    workers: int
    idle_seconds: float
    task_seconds: float | None
    run: Path

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        return cls(
            executor=_choice(environment, "EXECUTOR", ("warm", "stock")),
            preload=tuple(_text(environment, "EXECUTOR_PRELOAD", "keras flwr_datasets").replace(",", " ").split()),
            workers=_whole(environment, "EXECUTOR_WORKERS", 2, 1, 64),
            idle_seconds=_whole(environment, "EXECUTOR_IDLE", 300, 1, 86400),
            task_seconds=_whole(environment, "EXECUTOR_TIMEOUT", 0, 0, 86400) or None,
            run=Directories.read(environment).run,
        )


@dataclass(frozen=True)
class HostSettings:
    """What the commands on the host (`make run`, `make up`, ...) need to know."""

    supernodes: int
    dataset: Path | None
    fleet: str
    control_port: int
    fleet_port: int
    fleet_bind: str
    insecure: bool
    certificates: CertificateSettings
    hub_token: Path | None
    """File with a token for the dataset's hub."""
    partition_id: int | None
    """Of the node that `make join-command` is for."""
    run_config: str
    results: Path
    base_image: str | None
    tag: str
    """Of both images."""
    flower_home: Path
    home: Path
    """Where a fleet of local processes keeps its state, logs and caches."""
    up_timeout: int

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        dataset = _text(environment, "DATASET", "")
        own = _text(environment, "CERTIFICATES", "")
        joining = _text(environment, "PARTITION_ID", "")
        token = _text(environment, "HF_TOKEN_FILE", "")
        certificates = CertificateSettings.read(environment)
        if own:
            folder = _existing_folder("CERTIFICATES", own, "give a folder with ca.crt, server.pem and server.key")
            certificates = replace(certificates, own=folder, own_shown=str(folder))
        return cls(
            supernodes=_supernodes(environment),
            dataset=_existing_folder("DATASET", dataset, "give a folder in the layout of uoft-cs/cifar10")
            if dataset
            else None,
            fleet=_choice(environment, "FLEET", ("auto", "containers", "processes")),
            control_port=_whole(environment, "CONTROL_PORT", 9093, 1, MAX_PORT),
            fleet_port=_whole(environment, "FLEET_PORT", 9092, 1, MAX_PORT),
            fleet_bind=_fleet_bind(environment),
            insecure=_insecure(environment),
            certificates=certificates,
            hub_token=_existing_file("HF_TOKEN_FILE", token) if token else None,
            partition_id=_whole(environment, "PARTITION_ID", 0, 0, MAX_SUPERNODES) if joining else None,
            run_config=_text(environment, "RUN_CONFIG", ""),
            results=Path(_text(environment, "RESULTS", str(PROJECT / "results"))),
            base_image=_text(environment, "BASE_IMAGE", "") or None,
            tag=_text(environment, "TAG", "latest"),
            home=Path(_text(environment, "BOUQUET_HOME", str(PROJECT / ".bouquet"))).resolve(),
            flower_home=Path(_text(environment, "FLWR_HOME", str(Path.home() / ".flwr"))),
            up_timeout=_whole(environment, "UP_TIMEOUT", 300, 1, 86400),
        )


def share_of_cores(supernodes: int, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many threads one of `supernodes` nodes on this machine gets, at least 1.

    A container with a CPU limit of its own gets that many; others share the machine's cores.
    """
    limit = _cpu_limit(cgroup)
    return max(1, int(limit) if limit is not None else len(os.sched_getaffinity(0)) // supernodes)


def _cpu_limit(cgroup: Path) -> float | None:
    """Return the cores that the container may use (`docker run --cpus`); None where there is no limit."""
    try:
        if (cgroup / "cpu.max").exists():  # cgroup v2
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no cgroup here, or `max`: no limit
        return None


def _existing_folder(name: str, value: str, hint: str) -> Path:
    path = Path(value).expanduser().resolve()
    if not path.is_dir():
        raise SettingError(
            name,
            value,
            "there is no such folder",
            f"{hint}, or leave {name} out",
        )
    return path


def _existing_file(name: str, value: str) -> Path:
    path = Path(value).expanduser().resolve()
    if not path.is_file():
        raise SettingError(name, value, "there is no such file", f"correct it, or leave {name} out")
    return path
