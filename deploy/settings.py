"""Every setting that Bouquet reads from the environment, typed and checked: nothing else reads it.

`.env.example` documents them for users. A dataclass for each reader: the host's commands (`HostSettings`), the
one-shots that make certificates and enrol nodes, the SuperLink's entry point and the SuperNode's.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from deploy import gpu
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


def _size_file(environment: Environment) -> Path | None:
    """Return the file that has the fleet's size (deploy/size.py); where it is given, `SUPERNODES` is not asked."""
    name = _text(environment, "BOUQUET_SIZE_FILE", "")
    return Path(name) if name else None


def _identity(environment: Environment, supernodes: int) -> tuple[int | None, str]:
    """Return the partition-id that this SuperNode is given from outside, and by which setting; None: by a lease.

    In this order: the user's word, Swarm's task slot (from 1), a Kubernetes StatefulSet's ordinal.
    """
    if _text(environment, "PARTITION_ID", ""):
        return _whole(environment, "PARTITION_ID", 0, 0, supernodes - 1), "PARTITION_ID"
    # Compose hands on Swarm's template as it stands: no slot.
    if not environment.get("TASK_SLOT", "{{").startswith("{{") and _text(environment, "TASK_SLOT", ""):
        return _whole(environment, "TASK_SLOT", 1, 1, MAX_SUPERNODES) - 1, "TASK_SLOT"
    if _text(environment, "KUBERNETES_SERVICE_HOST", ""):
        pod = _text(environment, "POD_NAME", "") or _text(environment, "HOSTNAME", "")
        # Of few digits: the random end of a Deployment's pod has five characters, and these may all be digits.
        if ordinal := re.search(r"-(\d{1,4})$", pod):
            return int(ordinal[1]), "POD_NAME"
    return None, "PARTITION_ID"


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

    @property
    def nodes(self) -> Path:
        """What each SuperNode says of itself (deploy/node_file.py), shared by all."""
        return self.leases / "nodes"

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
    size_file: Path
    """Where it says how many there are to be."""
    insecure: bool
    control: str
    """The SuperLink's Control API."""
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        directories = Directories.read(environment)
        return cls(
            supernodes=_supernodes(environment),
            size_file=_size_file(environment) or directories.leases / "size",
            insecure=_insecure(environment),
            control=_text(environment, "CONTROL", "control:9093"),
            directories=directories,
        )


@dataclass(frozen=True)
class GpuSettings:
    """What nodes compute on: see deploy/gpu.py."""

    devices: tuple[gpu.Device, ...] | None
    """`GPUS` as a list; empty: the CPU, as asked for; None: what there is."""
    memory_mib: int | None
    """What TensorFlow may allocate in each process; None: an equal part."""
    nodes: int | None
    """How many nodes an equal part is reckoned for; None: as many as there are."""
    workers: int
    own: gpu.Device | None
    """The device of this one node, whatever the plan says."""

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        given = _text(environment, "GPUS", "auto")
        own, memory = _text(environment, "GPU", ""), _text(environment, "GPU_MEMORY", "")
        memory_mib, nodes = gpu.parse_memory("GPU_MEMORY", memory) if memory else (None, None)
        devices: tuple[gpu.Device, ...] | None = None
        if given != "auto":
            devices = () if given == "none" else gpu.parse_devices("GPUS", given)
        device = gpu.parse_device("GPU", own) if own not in ("", "none") else None
        if device and device.memory_mib:
            raise SettingError("GPU", own, "a device only", "say how much of it by GPU_MEMORY, as in GPU_MEMORY=4GiB")
        return cls(
            devices=() if own == "none" else devices,
            memory_mib=memory_mib,
            nodes=nodes,
            workers=_whole(environment, "EXECUTOR_WORKERS", 2, 1, 64),
            own=device,
        )


@dataclass(frozen=True)
class SuperLinkSettings:
    """What the SuperLink's entry point needs to know."""

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
    size_file: Path | None
    """Has the fleet's size in the place of `supernodes`."""
    partition_id: int | None
    named_by: str
    """The setting that `partition_id` comes from."""
    superlink: str
    superlink_max_wait: int
    dataset: str | None
    threads: int | None
    """Of TensorFlow; None: the node's share of the cores."""
    gpus: GpuSettings
    runtime_address: str
    insecure: bool
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        size_file = _size_file(environment)
        supernodes = MAX_SUPERNODES if size_file else _supernodes(environment)
        partition_id, named_by = _identity(environment, supernodes)
        return cls(
            supernodes=supernodes,
            size_file=size_file,
            partition_id=partition_id,
            named_by=named_by,
            superlink=_text(environment, "SUPERLINK", "superlink:9092"),
            superlink_max_wait=_whole(environment, "SUPERLINK_MAX_WAIT", 300, 1, 86400),
            dataset=_text(environment, "BOUQUET_DATASET", "") or None,
            threads=_whole(environment, "TF_THREADS", 1, 1, 1024) if _text(environment, "TF_THREADS", "") else None,
            gpus=GpuSettings.read(environment),
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
    device: str
    """What the entry point gave this node's apps to compute on."""
    run: Path
    nodes: Path
    leases: Path
    size_file: Path | None
    place: tuple[int, bool] | None
    """A SuperNode's partition-id, and whether it was given from outside: from its entry point."""

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        directories = Directories.read(environment)
        partition_id, _, how = _text(environment, "BOUQUET_PLACE", "").partition(" ")
        return cls(
            executor=_choice(environment, "EXECUTOR", ("warm", "stock")),
            preload=tuple(_text(environment, "EXECUTOR_PRELOAD", "keras flwr_datasets").replace(",", " ").split()),
            workers=_whole(environment, "EXECUTOR_WORKERS", 2, 1, 64),
            idle_seconds=_whole(environment, "EXECUTOR_IDLE", 300, 1, 86400),
            task_seconds=_whole(environment, "EXECUTOR_TIMEOUT", 0, 0, 86400) or None,
            device=gpu.given(environment),
            run=directories.run,
            nodes=directories.nodes,
            leases=directories.leases,
            size_file=_size_file(environment),
            place=(int(partition_id), how == "given") if partition_id else None,
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
    gpus: GpuSettings
    base_image: str | None
    tag: str
    """Of both images."""
    flower_home: Path
    home: Path
    """Where a fleet of local processes keeps its state, logs and caches."""
    up_timeout: int
    offline: bool

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
            gpus=GpuSettings.read(environment),
            base_image=_text(environment, "BASE_IMAGE", "") or None,
            tag=_text(environment, "TAG", "latest"),
            home=Path(_text(environment, "BOUQUET_HOME", str(PROJECT / ".bouquet"))).resolve(),
            flower_home=Path(_text(environment, "FLWR_HOME", str(Path.home() / ".flwr"))),
            up_timeout=_whole(environment, "UP_TIMEOUT", 300, 1, 86400),
            offline=_text(environment, "HF_HUB_OFFLINE", "0").lower() in ("1", "on", "yes", "true"),
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
