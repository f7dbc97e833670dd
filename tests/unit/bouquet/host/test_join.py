"""What starts SuperNodes on another machine: hardened as by Compose, the keys only in volumes or in a Secret."""

import base64
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from bouquet.contract.keys import JOINED_NUMBER, key_path, make_key, public_key
from bouquet.contract.tls_files import CA
from bouquet.errors import SettingError
from bouquet.flower import control_client
from bouquet.flower.control_client import FleetDescription, NodeDescription
from bouquet.host.endpoint import Endpoint
from bouquet.host.join import (
    HARDENING,
    PODMAN_HARDENING,
    PODMAN_SERVICE,
    SERVICE,
    JoinOptions,
    check_options,
    digest,
    docker_command,
    enrol_remote_nodes,
    fleet_address,
    podman_command,
)
from bouquet.host.join_kubernetes import manifest
from bouquet.host.joining_node import JoiningNode
from bouquet.oneshot.receive_identity import receive
from bouquet.settings.host import PROJECT, HostSettings
from bouquet.settings.node import SuperNodeSettings
from bouquet.settings.node_config_settings import NodeConfigSettings
from tests.unit.bouquet.conftest import Install

CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
OPEN = {"SUPERLINK_NAMES": "fleet.example.org", "FLEET_BIND": "0.0.0.0"}


def joining(name: str = "north", **more: Any) -> JoiningNode:
    return JoiningNode(name, make_key(), CERTIFICATE, "bouquet-supernode:latest", "fleet.example.org:9092", **more)


def options(words: Sequence[str]) -> dict[str, str]:
    return dict(option.removeprefix("--").partition("=")[::2] for option in words)


def test_its_container_is_as_hardened_and_as_limited_as_that_of_compose() -> None:
    service = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]["supernode"]
    given = options((*HARDENING, *SERVICE))
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


def test_podman_gets_the_same_hardening_and_limits_in_its_own_words() -> None:
    docker, podman = (
        options((*HARDENING, *SERVICE)),
        options((*PODMAN_HARDENING, *PODMAN_SERVICE)),
    )
    same = ("init", "read-only", "cap-drop", "security-opt", "memory", "cpus", "pids-limit", "sysctl")
    assert {name: podman[name] for name in same} == {name: docker[name] for name in same}
    tmpfs = [option for option in podman_command([joining()]).split() if option.startswith("--tmpfs=")]
    owned = {option.partition("=/")[2] for option in tmpfs} - {"tmp:mode=1777"}
    assert owned == {"run/bouquet:U,mode=0700", "var/lib/bouquet/leases:U,mode=0700"}
    assert podman["health-cmd"].endswith("readiness.py 0")  # at once: Podman's probes do not hold


@pytest.mark.parametrize(("engine", "command"), [("docker", docker_command), ("podman", podman_command)])
def test_the_keys_go_by_stdin_and_what_they_start_has_none(
    engine: str, command: Any, tmp_path: Path, install: Install
) -> None:
    nodes = [joining("north-1"), joining("north-2", partition_id=7)]
    script = f'case "$*" in *interactive*) while read -r line; do echo "$line"; done >> "{tmp_path}/stdin";; esac'
    install(**{engine: script})
    subprocess.run(["/bin/sh", "-c", command(nodes)], check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 4
    identities = b"\n".join(CERTIFICATE + node.key.strip() for node in nodes)
    assert (tmp_path / "stdin").read_bytes().strip() == identities
    assert not any("PRIVATE KEY" in call for call in calls)
    for node, store, start in zip(nodes, calls[::2], calls[1::2], strict=True):
        volume = f"--volume=bouquet-{node.name}-{digest(node.key)}:/var/lib/bouquet/identities"
        assert "--network=none" in store and f"{volume} " in store
        assert f"--name=bouquet-{node.name} " in start and f"{volume}:ro" in start
        assert "--env=SUPERLINK=fleet.example.org:9092 --env=BOUQUET_JOINED=1" in start
        assert "SUPERNODES" not in start
    assert "PARTITION_ID" not in calls[1] and "--env=PARTITION_ID=7" in calls[3]


def test_a_node_that_cannot_be_started_ends_the_command_with_an_error(tmp_path: Path, install: Install) -> None:
    install(docker='case "$*" in *detach*) exit 125;; esac')
    done = subprocess.run(["/bin/sh", "-c", docker_command([joining("a"), joining("b")])])
    assert done.returncode == 125
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


def test_what_comes_in_lies_where_the_supernode_looks_for_it(tmp_path: Path) -> None:
    key = make_key()
    receive(tmp_path, b"\n" + CERTIFICATE + key + b"\n")
    assert key_path(tmp_path, JOINED_NUMBER).read_bytes() == key
    assert (tmp_path / CA).read_bytes() == CERTIFICATE


def test_the_manifest_has_each_key_in_a_secret_only_and_its_pods_are_restricted() -> None:
    nodes = [joining("north-1", node_config='site="a b"'), joining("north-2")]
    items = yaml.safe_load(manifest(nodes))["items"]
    assert [item["kind"] for item in items] == ["Secret", "Deployment"] * 2
    for node, secret, deployment in zip(nodes, items[::2], items[1::2], strict=True):
        assert secret["metadata"]["name"] == deployment["metadata"]["name"] == f"bouquet-{node.name}"
        files = {name: base64.b64decode(content) for name, content in secret["data"].items()}
        assert files == {"ca.crt": CERTIFICATE, "node-0.key": node.key}
        assert "PRIVATE" not in json.dumps(deployment)
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
        assert mounts["identities"] == "/var/lib/bouquet/identities"
    given = {entry["name"]: entry["value"] for entry in items[1]["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert given["NODE_CONFIG"] == 'site="a b"'
    assert given["BOUQUET_JOINED"] == "1"


def test_a_joined_node_takes_no_partition_from_the_engine_that_runs_it() -> None:
    engine = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAME": "bouquet-north-3", "TASK_SLOT": "2"}
    settings = SuperNodeSettings.read({**joining().environment(), **engine})
    assert settings.joined and settings.partition_id is None
    pinned = SuperNodeSettings.read({**joining(partition_id=11).environment(), **engine})
    assert pinned.partition_id == 11


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


@pytest.mark.parametrize(
    ("environment", "given", "complaint"),
    [
        ({}, JoinOptions(nodes=0), "--nodes=0: not a number of nodes"),
        ({}, JoinOptions(name="North"), "--name=North: 'North' is not a name for a node; use at most 40"),
        ({}, JoinOptions(nodes=10, name="n" * 38), "--name=n+: 'n+-10' is not a name"),
        ({"PARTITION_ID": "3"}, JoinOptions(nodes=2), "PARTITION_ID=3: 2 nodes cannot hold the same partition"),
    ],
)
def test_an_impossible_command_line_is_refused(environment: dict[str, str], given: JoinOptions, complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        check_options(HostSettings.read({**OPEN, **environment}), given)


class Api:
    """A SuperLink's Control API that knows one node."""

    registered: list[bytes]
    named: dict[int, str]

    def __init__(self, address: str, root_certificate: bytes | None) -> None:
        Api.registered, Api.named = [], {}

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def describe(self, seconds: float) -> FleetDescription:
        return FleetDescription(2, {5: NodeDescription("south-2", 1, "joined", True)})

    def register(self, key: bytes) -> int:
        self.registered.append(key)
        return 100 + len(self.registered)

    def name_node(self, node_id: int, name: str, seconds: float) -> None:
        self.named[node_id] = name


def enrol(given: JoinOptions, **environment: str) -> tuple[str, list[str]]:
    settings = HostSettings.read({**OPEN, **environment})
    return enrol_remote_nodes(settings, given, Endpoint("127.0.0.1:9093", CERTIFICATE), "bundle-1")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_client, "ControlClient", Api)


@pytest.mark.usefixtures("api")
def test_each_node_has_a_key_and_a_name_of_its_own_which_the_superlink_knows_before_the_command_is_printed() -> None:
    command, lines = enrol(JoinOptions(nodes=2, name="north"))
    assert Api.named == {101: "north-1", 102: "north-2"}
    assert len(set(Api.registered)) == 2
    assert "--name=bouquet-north-1 " in command and "--name=bouquet-north-2 " in command
    assert lines[0].startswith("enrolled north-1, node-id 101, key SHA256:")
    assert "starts 2 nodes" in lines[-1]
    assert lines[-1].endswith("docker save bouquet-supernode:bundle-1 | ssh MACHINE docker load")
    assert "PRIVATE KEY" not in "".join(lines)


@pytest.mark.usefixtures("api")
def test_a_node_without_a_name_is_named_after_its_key() -> None:
    command, _ = enrol(JoinOptions(engine="podman"))
    key = re.search("-----BEGIN OPENSSH.*OPENSSH PRIVATE KEY-----", command, re.DOTALL)
    assert key is not None
    pem = key[0].encode() + b"\n"
    assert Api.named == {101: f"node-{digest(pem)}"}
    assert Api.registered == [public_key(pem)]


@pytest.mark.usefixtures("api")
def test_a_name_that_another_node_has_is_refused_before_any_node_is_enrolled() -> None:
    with pytest.raises(SettingError, match="--name=south: south-2 is the name of node 5; choose another"):
        enrol(JoinOptions(nodes=2, name="south"))
    assert Api.registered == []


@pytest.mark.usefixtures("api")
def test_the_image_of_the_manifest_is_the_one_that_the_user_names() -> None:
    printed, lines = enrol(JoinOptions(engine="kubernetes", image="registry.example.org/node:1"))
    assert json.loads(printed)["items"][1]["spec"]["template"]["spec"]["containers"][0]["image"] in lines[-1]


@pytest.mark.usefixtures("api")
def test_the_new_node_takes_its_keys_along_whatever_their_values(tmp_path: Path, install: Install) -> None:
    install(docker=f'for each; do case "$each" in --env=NODE_CONFIG=*) echo "$each" > "{tmp_path}/env";; esac; done')
    (tmp_path / "nodes.toml").write_text('site = "a"\n[10]\nsite = "it\'s \\"b\\" $HOME"\n')
    for environment, site in (({"PARTITION_ID": "10"}, 'it\'s "b" $HOME'), ({}, "a")):
        command, _ = enrol(JoinOptions(), NODE_CONFIG_FILE=str(tmp_path / "nodes.toml"), **environment)
        subprocess.run(["/bin/sh", "-c", command], check=True)
        given = (tmp_path / "env").read_text().strip().removeprefix("--env=NODE_CONFIG=")
        assert NodeConfigSettings.read({"NODE_CONFIG": given}).of(10) == {"site": site}
