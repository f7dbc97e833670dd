"""The ports that the fleet publishes."""

from bouquet.host.checks.published_ports import ports
from bouquet.settings.host import HostSettings


def test_a_fleet_that_is_up_has_its_ports() -> None:
    message = ports(HostSettings.read({}), up=True)
    assert "9093 (CONTROL_PORT), 9092 (FLEET_PORT): used by the running fleet" in message
