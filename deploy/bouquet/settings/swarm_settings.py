"""Settings of a fleet on the hosts of a Docker Swarm."""

import os
from dataclasses import dataclass
from typing import Self

from bouquet.errors import SettingError
from bouquet.settings.env import Environment, text

SCHEMES = ("ssh://", "tcp://", "unix://")
"""How a Docker endpoint begins."""


@dataclass(frozen=True)
class SwarmSettings:
    """How the images get to the hosts of a Swarm.

    Attributes:
        hosts: Docker endpoints of the hosts that the images are loaded into, such as `ssh://user@host`.
        registry: The registry that the images are pushed to, such as `registry.example.org/team`; empty for none.
        images: The tag of images that the hosts have already; empty to build them here.
    """

    hosts: tuple[str, ...] = ()
    registry: str = ""
    images: str = ""

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` for an impossible value."""
        hosts = tuple(text(environment, "SWARM_HOSTS", "").replace(",", " ").split())
        for host in hosts:
            check_host("SWARM_HOSTS", host)
        return cls(
            hosts=hosts,
            registry=text(environment, "SWARM_REGISTRY", "").rstrip("/"),
            images=text(environment, "SWARM_IMAGES", ""),
        )


def check_host(name: str, host: str) -> None:
    """Check that a host is a Docker endpoint.

    Args:
        name: The setting, or the argument.
        host: Its value.

    Raises:
        SettingError: It is not.
    """
    if not host.startswith(SCHEMES):
        hint = f"give a Docker endpoint: ssh://{host}, tcp://HOST:2376 or unix://PATH"
        raise SettingError(name, host, "not a Docker endpoint", hint)
