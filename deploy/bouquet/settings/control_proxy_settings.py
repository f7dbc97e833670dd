"""Settings of `bouquet.superlink.control_proxy`, which passes a machine's loopback on to the Control API."""

import ipaddress
import os
from dataclasses import dataclass
from typing import Self

from bouquet.errors import SettingError
from bouquet.settings.env import MAX_PORT, Environment, text

ADDRESS, SOCKET = "CONTROL_PROXY_ADDRESS", "CONTROL_SOCKET"
HINT = "give a loopback address and a port, for example 127.0.0.1:9093"


@dataclass(frozen=True)
class ControlProxySettings:
    """Where the proxy listens, and where it leads.

    Attributes:
        host: A loopback address: clients of the Control API can run code on every node.
        port: The port.
        socket: The path of the SuperLink's Unix socket.
    """

    host: str
    port: int
    socket: str

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` for an address that other machines could reach."""
        address = text(environment, ADDRESS, "127.0.0.1:9093")
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        try:
            is_loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            raise SettingError(ADDRESS, address, "not an IP address and a port", HINT) from None
        if not is_loopback:
            raise SettingError(ADDRESS, address, "other machines could reach it, and run code on every node", HINT)
        if not port.isdigit() or not 1 <= int(port) <= MAX_PORT:
            raise SettingError(ADDRESS, address, "not a port", HINT)
        return cls(host, int(port), text(environment, SOCKET, "/var/lib/bouquet/control/control.sock"))

    def unusable(self, error: OSError) -> SettingError:
        """Return the error for an address that cannot be used."""
        return SettingError(ADDRESS, f"{self.host}:{self.port}", str(error.strerror), HINT)
