"""The command that starts a SuperNode on another machine: hardened as by Compose, the key only in a volume."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from bouquet.contract.keys import key_path, make_key
from bouquet.contract.tls_files import CA
from bouquet.errors import SettingError
from bouquet.host.join import HARDENING, SERVICE, fleet_address, start_command
from bouquet.oneshot.receive_identity import receive
from bouquet.settings.host import PROJECT, HostSettings
from bouquet.settings.node_config_settings import NodeConfigSettings, notation
from tests.unit.bouquet.conftest import Install

CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def test_its_container_is_as_hardened_and_as_limited_as_that_of_compose() -> None:
    service = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]["supernode"]
    given = dict(option.removeprefix("--").partition("=")[::2] for option in (*HARDENING, *SERVICE))
    assert "init" in given and "read-only" in given
    assert [given["cap-drop"]] == service["cap_drop"]
    assert [given["security-opt"]] == service["security_opt"]
    assert [f"/{option.partition('=/')[2]}" for option in HARDENING if "tmpfs" in option] == service["tmpfs"]
    assert given["restart"] == service["restart"]
    for option, name in (("memory", "mem_limit"), ("cpus", "cpus"), ("pids-limit", "pids_limit")):
        assert re.fullmatch(rf"\$\{{\w+:-{given[option]}\}}", str(service[name]))
    assert given["sysctl"] == "net.ipv4.tcp_retries2=5"
    assert given["health-cmd"].split() == service["healthcheck"]["test"][1:]
    assert given["health-timeout"] == service["healthcheck"]["timeout"]


def test_the_key_goes_by_stdin_and_what_it_starts_has_none(tmp_path: Path, install: Install) -> None:
    identity = CERTIFICATE + make_key()
    install(docker=f'case "$*" in *interactive*) while read -r line; do echo "$line"; done > "{tmp_path}/stdin";; esac')
    command = start_command("latest", "fleet.example.org:9092", 10, 11, identity)
    subprocess.run(["/bin/sh", "-c", command], check=True)
    keep, start = (tmp_path / "calls").read_text().splitlines()
    assert (tmp_path / "stdin").read_bytes().strip() == identity.strip()
    for call in (keep, start):
        assert "PRIVATE KEY" not in call
    assert "--env=SUPERLINK=fleet.example.org:9092 --env=PARTITION_ID=10 --env=SUPERNODES=11" in start
    assert "--network=none" in keep
    assert "bouquet-node-10:/var/lib/bouquet/identities:ro" in start


def test_what_comes_in_lies_where_the_supernode_looks_for_it(tmp_path: Path) -> None:
    key = make_key()
    receive(tmp_path, 7, b"\n" + CERTIFICATE + key + b"\n")
    assert key_path(tmp_path, 7).read_bytes() == key
    assert (tmp_path / CA).read_bytes() == CERTIFICATE


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "SUPERLINK_NAMES=: .*SUPERLINK_NAMES=fleet.example.org FLEET_BIND=0.0.0.0 make up"),
        (
            {"SUPERLINK_NAMES": "a.example"},
            "FLEET_BIND=127.0.0.1: no other machine can reach the Fleet API at this address",
        ),
        ({"INSECURE": "1"}, "INSECURE=1: a node on another machine needs TLS and a key; remove INSECURE"),
    ],
)
def test_a_fleet_that_no_other_machine_can_reach_is_refused(environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        fleet_address(HostSettings.read(environment))


def test_the_first_name_and_the_published_port_are_the_address() -> None:
    names = {"SUPERLINK_NAMES": "2001:db8::1, b.example", "FLEET_BIND": "0.0.0.0", "FLEET_PORT": "19092"}
    assert fleet_address(HostSettings.read(names)) == "[2001:db8::1]:19092"
    assert fleet_address(HostSettings.read({**names, "SUPERLINK_NAMES": "b.example"})) == "b.example:19092"


def test_the_new_node_takes_its_keys_along_whatever_their_values(tmp_path: Path, install: Install) -> None:
    install(docker=f'for each; do case "$each" in --env=NODE_CONFIG=*) echo "$each" > "{tmp_path}/env";; esac; done')
    (tmp_path / "nodes.toml").write_text('site = "a"\n[10]\nsite = "it\'s \\"b\\" $HOME"\n')
    keys = HostSettings.read({"NODE_CONFIG_FILE": str(tmp_path / "nodes.toml")}).node_config.of(10)
    command = start_command("latest", "fleet.example.org:9092", 10, 11, CERTIFICATE, notation(keys))
    subprocess.run(["/bin/sh", "-c", command], check=True)
    given = (tmp_path / "env").read_text().strip().removeprefix("--env=NODE_CONFIG=")
    assert NodeConfigSettings.read({"NODE_CONFIG": given}).of(10) == {"site": 'it\'s "b" $HOME'}
