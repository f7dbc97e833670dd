"""Settings of the SuperLink."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bouquet.settings.env import Directories, Environment, fleet_bind, hub_cache, is_insecure, text
from bouquet.settings.run_settings import RunSettings


@dataclass(frozen=True)
class SuperLinkSettings:
    """Settings of the SuperLink.

    Attributes:
        fleet_address: Where the Fleet API listens, for SuperNodes.
        control_address: Where the Control API listens, for the `flwr` command.
        runtime_address: Where the Runtime API listens, for the executor. It gives tasks and tokens to any client, so
            it must stay on loopback.
        insecure: Neither TLS nor node keys.
        hub_cache: The folder of HF_CACHE, and `HF_HOME`.
        directories: Where its files are.
    """

    fleet_address: str
    control_address: str
    runtime_address: str
    insecure: bool
    hub_cache: tuple[Path | None, Path | None]
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` for an impossible value."""
        fleet_bind(environment)  # refuses to publish the Fleet API beyond loopback without TLS
        RunSettings.read(environment)  # refuses impossible deadlines now, not at each run
        return cls(
            fleet_address=text(environment, "FLEET_ADDRESS", "0.0.0.0:9092"),
            control_address=text(environment, "CONTROL_ADDRESS", "0.0.0.0:9093"),
            runtime_address=text(environment, "RUNTIME_ADDRESS", "127.0.0.1:9091"),
            insecure=is_insecure(environment),
            hub_cache=hub_cache(environment),
            directories=Directories.read(environment),
        )
