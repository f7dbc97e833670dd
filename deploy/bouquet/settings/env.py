"""Parsers for environment variables, and the settings that several processes share.

An empty variable counts as not set, because Compose passes every setting on, set or not.
"""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bouquet.errors import SettingError

Environment = Mapping[str, str]

INSECURE_WARNING = (
    "INSECURE=1: no TLS and no authentication. Anyone who can reach this fleet can read what it sends, join it and run "
    "code on every node. Never use it beyond one machine"
)

MAX_SUPERNODES = 1000
MAX_PORT = 65535


def text(environment: Environment, name: str, default: str) -> str:
    """Return the value of a variable without surrounding white space, or the default."""
    return environment.get(name, "").strip() or default


def whole_number(environment: Environment, name: str, default: int, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`; raise `SettingError` for anything else."""
    value = text(environment, name, str(default))
    hint = f"give a whole number from {low} to {high}, for example {name}={default}"
    try:
        number = int(value)
    except ValueError:
        raise SettingError(name, value, "not a whole number", hint) from None
    if not low <= number <= high:
        raise SettingError(name, value, "out of range", hint)
    return number


def choice(environment: Environment, name: str, choices: tuple[str, ...]) -> str:
    """Return one of `choices`, by default the first; raise `SettingError` for anything else."""
    value = text(environment, name, choices[0])
    if value not in choices:
        raise SettingError(name, value, "unknown value", f"give one of: {', '.join(choices)}")
    return value


def is_insecure(environment: Environment) -> bool:
    """Return whether `INSECURE=1` turns TLS and node keys off."""
    return choice(environment, "INSECURE", ("0", "1")) == "1"


def superlink_names(environment: Environment) -> tuple[str, ...]:
    """Return the host names and addresses of `SUPERLINK_NAMES`, separated by commas or spaces."""
    return tuple(text(environment, "SUPERLINK_NAMES", "").replace(",", " ").split())


def fleet_bind(environment: Environment) -> str:
    """Return the address that the Fleet API is published on.

    Raises:
        SettingError: `FLEET_BIND` is not an IP address, or it is reachable from other machines without TLS.
    """
    value = text(environment, "FLEET_BIND", "127.0.0.1")
    try:
        loopback = ipaddress.ip_address(value).is_loopback
    except ValueError:
        raise SettingError(
            "FLEET_BIND", value, "not an IP address", "give an IP address of this machine, or 0.0.0.0 for all of them"
        ) from None
    if is_insecure(environment) and not loopback:
        raise SettingError(
            "FLEET_BIND",
            value,
            "INSECURE=1 would let any machine join the fleet and read what it sends",
            "leave INSECURE or FLEET_BIND out",
        )
    return value


def supernodes(environment: Environment) -> int:
    """Return the fleet's size from `SUPERNODES`."""
    return whole_number(environment, "SUPERNODES", 10, 1, MAX_SUPERNODES)


def size_file(environment: Environment) -> Path | None:
    """Return the file with the fleet's size (`bouquet.contract.fleet_size`), which overrides `SUPERNODES`."""
    name = text(environment, "BOUQUET_SIZE_FILE", "")
    return Path(name) if name else None


def hub_cache(environment: Environment) -> tuple[Path | None, Path | None]:
    """Return the folder of HF_CACHE as this process sees it, and `HF_HOME`; None for one that is not set."""
    brought, home = (text(environment, name, "") for name in ("BOUQUET_HF_CACHE", "HF_HOME"))
    return Path(brought) if brought else None, Path(home) if home else None


@dataclass(frozen=True)
class Directories:
    """Where a container, or the local process in its place, keeps its files.

    Attributes:
        run: Readiness and message files of one process. Never shared; may vanish with the process.
        state: The SuperLink's SQLite database.
        leases: Locks on partition-ids and the fleet's size, shared by all SuperNodes.
        authority: The fleet's CA with its private key. Only the process that issues certificates may read it.
        server: The SuperLink's certificate and private key.
        identities: The CA's certificate and the SuperNodes' private keys.
    """

    run: Path
    state: Path
    leases: Path
    authority: Path
    server: Path
    identities: Path

    @property
    def nodes(self) -> Path:
        """The status files of all SuperNodes (`bouquet.contract.node_status`)."""
        return self.leases / "nodes"

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read `BOUQUET_RUN_DIR`, `BOUQUET_STATE_DIR` and so on."""
        return cls(
            run=Path(text(environment, "BOUQUET_RUN_DIR", "/run/bouquet")),
            state=Path(text(environment, "BOUQUET_STATE_DIR", "/var/lib/bouquet/state")),
            leases=Path(text(environment, "BOUQUET_LEASE_DIR", "/var/lib/bouquet/leases")),
            authority=Path(text(environment, "BOUQUET_AUTHORITY_DIR", "/var/lib/bouquet/authority")),
            server=Path(text(environment, "BOUQUET_SERVER_DIR", "/var/lib/bouquet/server")),
            identities=Path(text(environment, "BOUQUET_IDENTITY_DIR", "/var/lib/bouquet/identities")),
        )
