"""Settings of the SuperLink."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bouquet.contract.keys import SEED_FILE, read_seed
from bouquet.settings.env import (
    Directories,
    Environment,
    choice,
    fleet_bind,
    hub_cache,
    is_insecure,
    size_file,
    supernodes,
    text,
)
from bouquet.settings.run_settings import RunSettings


@dataclass(frozen=True)
class SuperLinkSettings:
    """Settings of the SuperLink.

    Attributes:
        fleet_address: Where the Fleet API listens, for SuperNodes.
        control_address: Where the Control API listens, for the `flwr` command. Flower's parser knows no Unix sockets:
            for one this is any free port, which is not used (`FlowerProcessSettings.control_socket`).
        runtime_address: Where the Runtime API listens, for the executor. It gives tasks and tokens to any client, so
            it must stay on loopback.
        insecure: Neither TLS nor node keys.
        issues_certificate: Whether the SuperLink issues its own certificate before it serves, with the CA's key.
        hub_cache: The folder of HF_CACHE, and `HF_HOME`.
        directories: Where its files are.
    """

    fleet_address: str
    control_address: str
    runtime_address: str
    insecure: bool
    issues_certificate: bool
    hub_cache: tuple[Path | None, Path | None]
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` for an impossible value."""
        control = text(environment, "CONTROL_ADDRESS", "0.0.0.0:9093")
        fleet_bind(environment)  # refuses to publish the Fleet API beyond loopback without TLS
        RunSettings.read(environment)  # refuses impossible deadlines now, not at each run
        FlowerProcessSettings.read(environment).seed()
        return cls(
            fleet_address=text(environment, "FLEET_ADDRESS", "0.0.0.0:9092"),
            control_address="127.0.0.1:0" if control.startswith("unix:") else control,
            runtime_address=text(environment, "RUNTIME_ADDRESS", "127.0.0.1:9091"),
            insecure=is_insecure(environment),
            issues_certificate=choice(environment, "BOUQUET_ISSUE_CERTIFICATE", ("0", "1")) == "1",
            hub_cache=hub_cache(environment),
            directories=Directories.read(environment),
        )


@dataclass(frozen=True)
class FlowerProcessSettings:
    """Settings of the process that runs Flower's SuperLink, beyond the arguments of `flower-superlink`.

    Attributes:
        size_file: The file with the size of a fleet on one machine; None in a cluster.
        expected_supernodes: The size of a cluster that was just started; None if it is unknown.
        seed_file: The file with the secret from which the nodes of a cluster derive their keys; None without one.
        control_socket: Where the Control API listens in place of an address: `unix:` and a path; None: at the address.
        directories: Where its files are.
    """

    size_file: Path | None
    expected_supernodes: int | None
    seed_file: Path | None
    control_socket: str | None
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` for an impossible value."""
        control = text(environment, "CONTROL_ADDRESS", "")
        seed = text(environment, SEED_FILE, "")
        return cls(
            size_file=size_file(environment),
            expected_supernodes=supernodes(environment) if text(environment, "SUPERNODES", "") else None,
            seed_file=Path(seed) if seed else None,
            control_socket=control if control.startswith("unix:") else None,
            directories=Directories.read(environment),
        )

    def seed(self) -> bytes | None:
        """Return the seed; None outside of a cluster. Raises `SettingError` if it cannot be read."""
        return None if self.seed_file is None else read_seed(self.seed_file)
