"""Settings of the one-shot containers that prepare a fleet."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bouquet.settings.env import Directories, Environment, is_insecure, size_file, superlink_names, supernodes, text


@dataclass(frozen=True)
class CertificateSettings:
    """What the process that issues certificates needs to know; nothing that changes with the fleet's size.

    Attributes:
        names: Host names and addresses by which other machines reach the SuperLink.
        user_dir: The user's own certificates, as this process sees the folder; None for certificates of the fleet.
        user_dir_label: The same folder as the user wrote it, for messages.
        directories: Where files are.
    """

    names: tuple[str, ...]
    user_dir: Path | None
    user_dir_label: str
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        label = text(environment, "CERTIFICATES", "")
        folder = text(environment, "BOUQUET_CERTIFICATES", label)
        return cls(
            names=superlink_names(environment),
            user_dir=Path(folder) if folder else None,
            user_dir_label=label or folder,
            directories=Directories.read(environment),
        )


@dataclass(frozen=True)
class EnrolSettings:
    """What the process that enrols the SuperNodes needs to know.

    Attributes:
        supernodes: The fleet's size.
        size_file: The file that it writes the size to.
        insecure: Neither TLS nor node keys.
        control: Address of the SuperLink's Control API.
        directories: Where files are.
    """

    supernodes: int
    size_file: Path
    insecure: bool
    control: str
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` where one is impossible."""
        directories = Directories.read(environment)
        return cls(
            supernodes=supernodes(environment),
            size_file=size_file(environment) or directories.leases / "size",
            insecure=is_insecure(environment),
            control=text(environment, "CONTROL", "control:9093"),
            directories=directories,
        )
