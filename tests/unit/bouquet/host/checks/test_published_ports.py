"""The ports that the fleet publishes."""

import socket

import pytest

from bouquet.errors import SettingError
from bouquet.host.checks.published_ports import check_ports, ports
from bouquet.settings.host import HostSettings


def test_a_fleet_that_is_up_has_its_ports() -> None:
    message = ports(HostSettings.read({}), up=True)
    assert "9093 (CONTROL_PORT), 9092 (FLEET_PORT): used by the running fleet" in message


def test_a_port_in_use_is_refused_with_another_one_to_give() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = HostSettings.read({"CONTROL_PORT": str(port), "FLEET_PORT": "1"})
        with pytest.raises(SettingError, match=rf"CONTROL_PORT={port}: cannot be used .*in use.*CONTROL_PORT=\d+"):
            check_ports(settings)


def test_free_ports_pass() -> None:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        free = first.getsockname()[1], second.getsockname()[1]
    settings = HostSettings.read({"CONTROL_PORT": str(free[0]), "FLEET_PORT": str(free[1])})
    assert ports(settings, up=False) == f"{free[0]} (CONTROL_PORT), {free[1]} (FLEET_PORT): free"
