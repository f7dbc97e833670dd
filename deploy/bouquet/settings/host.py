"""Settings of the commands on the host (`bouquet run`, `bouquet up`, ...)."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from bouquet.errors import SettingError
from bouquet.settings.env import (
    MAX_PORT,
    MAX_SUPERNODES,
    Environment,
    choice,
    fleet_bind,
    is_insecure,
    supernodes,
    text,
    whole_number,
)
from bouquet.settings.gpu_settings import GpuSettings
from bouquet.settings.node_config_settings import NodeConfigSettings
from bouquet.settings.oneshot import CertificateSettings
from bouquet.settings.run_settings import RunSettings
from bouquet.settings.swarm_settings import SwarmSettings

PROJECT = Path(__file__).resolve().parents[3]
"""The checkout, with docker-compose.yml and the app."""
CPU_LIMITS = ("SUPERLINK_CPUS", "SUPERNODE_CPUS")


@dataclass(frozen=True)
class HostSettings:
    """The settings of the commands on the host.

    Attributes:
        app: Folder of the Flower App that the fleet has the packages of; by default the checkout, with the shipped app.
        supernodes: The fleet's size.
        dataset: Folder with the data; None for the hub or the sample.
        fleet: `auto`, `containers`, `processes` or `swarm`.
        control_port: Port of the Control API on 127.0.0.1.
        fleet_port: Port of the Fleet API.
        fleet_bind: Address that the Fleet API is published on.
        insecure: Whether the fleet has neither TLS nor node keys.
        certificates: What the SuperLink's certificate is issued for, and the user's own certificates.
        hub_token: File with a token for the dataset's hub.
        hf_cache: Folder with a Hugging Face cache that was brought along; None for none. It may not exist.
        node_config: Further keys of the nodes' config.
        partition_id: The partition of the node that `bouquet join-command` enrols.
        run_config: Overrides of the app's run-config.
        results: Where results go.
        gpus: What the nodes compute on.
        base_image: The image that both images are built on; None for the default.
        compose_project: Name of the Compose project.
        tag: Tag of both images; by default the name of the Compose project.
        flower_home: Flower's folder, with the connection to the fleet.
        home: Where a fleet of local processes keeps its state, logs and caches.
        up_timeout: Seconds that the fleet may take to become healthy.
        offline: Whether the hub must not be asked.
        without_cpu_limit: Those of `CPU_LIMITS` that are 0: these containers have no limit on CPUs.
        swarm: How the images get to the hosts of a Swarm.
        partition_cache_gib: GiB that the cache of decoded partitions may take; 0 for no limit.
    """

    app: Path
    supernodes: int
    dataset: Path | None
    fleet: str
    control_port: int
    fleet_port: int
    fleet_bind: str
    insecure: bool
    certificates: CertificateSettings
    hub_token: Path | None
    hf_cache: Path | None
    node_config: NodeConfigSettings
    partition_id: int | None
    run_config: str
    results: Path
    gpus: GpuSettings
    base_image: str | None
    compose_project: str
    tag: str
    flower_home: Path
    home: Path
    up_timeout: int
    offline: bool
    without_cpu_limit: tuple[str, ...]
    partition_cache_gib: int
    swarm: SwarmSettings

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings.

        Raises:
            SettingError: A setting is invalid.
        """
        dataset = text(environment, "DATASET", "")
        user_certificates = text(environment, "CERTIFICATES", "")
        joining = text(environment, "PARTITION_ID", "")
        token = text(environment, "HF_TOKEN_FILE", "")
        hf_cache = text(environment, "HF_CACHE", "")
        node_config_file = text(environment, "NODE_CONFIG_FILE", "")
        compose_project = text(environment, "COMPOSE_PROJECT_NAME", "bouquet")
        RunSettings.read(environment)  # the SuperLink reads them; impossible ones are refused before it stops
        certificates = CertificateSettings.read(environment)
        if user_certificates:
            hint = "give a folder with ca.crt, server.pem and server.key"
            folder = _existing_folder("CERTIFICATES", user_certificates, hint)
            certificates = replace(certificates, user_dir=folder, user_dir_label=str(folder))
        return cls(
            app=_path("APP", text(environment, "APP", ".")).resolve(),
            supernodes=supernodes(environment),
            dataset=_existing_folder("DATASET", dataset, "give a folder in the layout of uoft-cs/cifar10")
            if dataset
            else None,
            fleet=choice(environment, "FLEET", ("auto", "containers", "processes", "swarm")),
            control_port=whole_number(environment, "CONTROL_PORT", 9093, 1, MAX_PORT),
            fleet_port=whole_number(environment, "FLEET_PORT", 9092, 1, MAX_PORT),
            fleet_bind=fleet_bind(environment),
            insecure=is_insecure(environment),
            certificates=certificates,
            hub_token=_existing_file("HF_TOKEN_FILE", token) if token else None,
            hf_cache=_path("HF_CACHE", hf_cache).resolve() if hf_cache else None,
            node_config=NodeConfigSettings.read(
                environment, _existing_file("NODE_CONFIG_FILE", node_config_file) if node_config_file else None
            ),
            partition_id=whole_number(environment, "PARTITION_ID", 0, 0, MAX_SUPERNODES) if joining else None,
            run_config=text(environment, "RUN_CONFIG", ""),
            results=_path("RESULTS", text(environment, "RESULTS", "results")),
            gpus=GpuSettings.read(environment),
            base_image=text(environment, "BASE_IMAGE", "") or None,
            compose_project=compose_project,
            tag=text(environment, "TAG", compose_project),
            flower_home=_path("FLWR_HOME", text(environment, "FLWR_HOME", "~/.flwr")),
            home=_path("BOUQUET_HOME", text(environment, "BOUQUET_HOME", ".bouquet")).resolve(),
            up_timeout=whole_number(environment, "UP_TIMEOUT", 300, 1, 86400),
            offline=text(environment, "HF_HUB_OFFLINE", "0").lower() in ("1", "on", "yes", "true"),
            without_cpu_limit=tuple(name for name in CPU_LIMITS if _cpu_limit(environment, name) == 0),
            partition_cache_gib=whole_number(environment, "PARTITION_CACHE_GIB", 5, 0, 100_000),
            swarm=SwarmSettings.read(environment),
        )


def _cpu_limit(environment: Environment, name: str) -> float:
    value = text(environment, name, "1")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise SettingError(name, value, "not a number of CPUs", f"give a number, or 0 for no limit: {name}=1.5")
    return limit


def _path(name: str, value: str) -> Path:
    """Return an absolute path: `~` is expanded, as Compose does; a relative path is relative to the checkout."""
    try:
        return PROJECT / Path(value).expanduser()
    except RuntimeError as error:
        raise SettingError(name, value, "there is no such home folder", f"correct it, or leave {name} out") from error


def _existing_folder(name: str, value: str, hint: str) -> Path:
    path = _path(name, value).resolve()
    if not _look(name, value, path.is_dir):
        raise SettingError(name, value, "there is no such folder", f"{hint}, or leave {name} out")
    return path


def _existing_file(name: str, value: str) -> Path:
    path = _path(name, value).resolve()
    if not _look(name, value, path.is_file):
        raise SettingError(name, value, "there is no such file", f"correct it, or leave {name} out")
    return path


def _look(name: str, value: str, exists: Callable[[], bool]) -> bool:
    try:
        return exists()
    except OSError as error:  # a folder above that this user may not enter
        hint = f"give this user access to all folders above it, or leave {name} out"
        raise SettingError(name, value, f"cannot be looked at ({error.strerror})", hint) from error
