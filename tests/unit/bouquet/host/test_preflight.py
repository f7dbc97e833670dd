"""Preflight: a start that cannot succeed is refused before anything starts."""

import socket
from collections import namedtuple
from pathlib import Path

import pytest

from bouquet.errors import HostError, SettingError
from bouquet.host import preflight
from bouquet.settings.host import HostSettings


def test_a_port_in_use_is_refused_with_another_one_to_give() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = HostSettings.read({"CONTROL_PORT": str(port), "FLEET_PORT": "1"})
        with pytest.raises(SettingError, match=rf"CONTROL_PORT={port}: cannot be used .*in use.*CONTROL_PORT=\d+"):
            preflight.check_ports(settings)


def test_too_little_disk_is_refused_with_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10, 10, int(1.5 * preflight.GIB)))
    with pytest.raises(HostError, match=r"1\.5 GiB free, 5 GiB needed; free some"):
        preflight.check_disk(tmp_path)


def test_enough_disk_and_free_ports_pass(tmp_path: Path) -> None:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        ports = first.getsockname()[1], second.getsockname()[1]
    preflight.check_ports(HostSettings.read({"CONTROL_PORT": str(ports[0]), "FLEET_PORT": str(ports[1])}))
    preflight.check_disk(tmp_path, needed=1)
