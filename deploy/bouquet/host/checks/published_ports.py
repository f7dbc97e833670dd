"""Whether the ports that the fleet publishes are free."""

import socket

from bouquet.errors import SettingError
from bouquet.settings.env import MAX_PORT
from bouquet.settings.host import HostSettings


def ports(settings: HostSettings, up: bool) -> str:
    """Check that the fleet's ports are free, or used by the fleet itself."""
    names = f"{settings.control_port} (CONTROL_PORT), {settings.fleet_port} (FLEET_PORT)"
    if up:
        return f"{names}: used by the running fleet"
    check_ports(settings)
    return f"{names}: free"


def check_ports(settings: HostSettings) -> None:
    """Check that the ports that the fleet will publish are free. Call it only while the fleet is down.

    Raises:
        SettingError: A port is in use.
    """
    for name, port in (("CONTROL_PORT", settings.control_port), ("FLEET_PORT", settings.fleet_port)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                another = port + 10000 if port + 10000 <= MAX_PORT else port - 10000
                raise SettingError(
                    name,
                    port,
                    f"cannot be used ({error.strerror})",
                    f"stop the program that uses it, or give another: {name}={another}",
                ) from error
