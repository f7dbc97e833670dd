"""Settings of the one-shot containers that prepare a fleet."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bouquet.errors import HostError
from bouquet.settings.env import Directories, Environment, is_insecure, size_file, superlink_names, supernodes, text

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True)
class CertificateSettings:
    """Settings of the process that issues certificates. None of them changes with the fleet's size.

    Attributes:
        names: Host names and addresses under which other machines reach the SuperLink.
        user_dir: The folder with the user's own certificates, as this process sees it; None to use the fleet's CA.
        user_dir_label: The same folder as the user wrote it, for messages.
        directories: Where its files are.
    """

    names: tuple[str, ...]
    user_dir: Path | None
    user_dir_label: str
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` for an impossible value."""
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
    """Settings of the process that enrols the SuperNodes.

    Attributes:
        supernodes: The fleet's size.
        size_file: The file to write the size to.
        insecure: Neither TLS nor node keys.
        control: Address of the SuperLink's Control API.
        directories: Where its files are.
    """

    supernodes: int
    size_file: Path
    insecure: bool
    control: str
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` for an impossible value."""
        directories = Directories.read(environment)
        return cls(
            supernodes=supernodes(environment),
            size_file=size_file(environment) or directories.leases / "size",
            insecure=is_insecure(environment),
            control=text(environment, "CONTROL", "control:9093"),
            directories=directories,
        )


@dataclass(frozen=True)
class SubmitSettings:
    """Settings of the process that submits an app from within the fleet.

    Attributes:
        insecure: Neither TLS nor node keys.
        control: Address of the SuperLink's Control API.
        directories: Where its files are.
    """

    insecure: bool
    control: str
    directories: Directories

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` for an impossible value."""
        return cls(
            insecure=is_insecure(environment),
            control=text(environment, "CONTROL", "control:9093"),
            directories=Directories.read(environment),
        )


@dataclass(frozen=True)
class KubernetesSecretSettings:
    """Settings of the hook that creates Secrets in Kubernetes. The chart sets them; an empty name: no such Secret.

    Attributes:
        authority: Name of the Secret with the CA and its private key.
        ca: Name of the Secret with the CA's certificate alone.
        seed: Name of the Secret with the seed of the SuperNodes' keys.
        labels: Labels of new Secrets.
        url: Address of the API server.
        service_account: The folder with the token of this pod.
    """

    authority: str
    ca: str
    seed: str
    labels: dict[str, str]
    url: str
    service_account: Path

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `HostError` outside Kubernetes."""
        host, port = (text(environment, f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        folder = Path(text(environment, "BOUQUET_SERVICE_ACCOUNT_DIR", SERVICE_ACCOUNT))
        if not (host and (folder / "token").exists()):
            raise HostError(
                "this is no pod of Kubernetes with a service account", "only the Helm chart's hook runs this"
            )
        return cls(
            authority=text(environment, "BOUQUET_AUTHORITY_SECRET", ""),
            ca=text(environment, "BOUQUET_CA_SECRET", ""),
            seed=text(environment, "BOUQUET_SEED_SECRET", ""),
            labels=json.loads(text(environment, "BOUQUET_SECRET_LABELS", "{}")),
            url=f"https://[{host}]:{port or 443}" if ":" in host else f"https://{host}:{port or 443}",
            service_account=folder,
        )
