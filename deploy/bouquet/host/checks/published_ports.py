"""Whether the ports that the fleet publishes are free."""

from bouquet.host import preflight
from bouquet.settings.host import HostSettings


def ports(settings: HostSettings, up: bool) -> str:
    """Check that the fleet's ports are free, or used by the fleet itself."""
    names = f"{settings.control_port} (CONTROL_PORT), {settings.fleet_port} (FLEET_PORT)"
    if up:
        return f"{names}: used by the running fleet"
    preflight.check_ports(settings)
    return f"{names}: free"
