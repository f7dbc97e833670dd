"""Secure by default: TLS and keys without a manual step, logged refusals, containers with few rights."""

import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from python_on_whales import Container, DockerClient

from bouquet.contract.keys import fingerprint, key_path, make_key, public_key
from bouquet.contract.tls_files import CA, SERVER_KEY
from bouquet.errors import FleetError
from bouquet.oneshot.certificates import ensure
from bouquet.settings.oneshot import CertificateSettings
from tests.e2e.conftest import (
    APPS,
    BIN,
    PROJECT,
    TAG,
    Bouquet,
    StartFleet,
    another_network,
    gateway,
    printed_json,
    start_elsewhere,
    wait_until,
)

PATIENCE = 120


# -- Who is admitted, on a fleet of processes


@pytest.fixture(scope="module")
def fleet(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """One node, as processes."""
    with start_fleet("processes", tmp_path_factory.mktemp("secure"), SUPERNODES="1", EXECUTOR_PRELOAD="json") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that nobody enrolled, and a CA of its own."""
    folder = tmp_path_factory.mktemp("stranger")
    folders = {f"BOUQUET_{kind.upper()}_DIR": str(folder) for kind in ("authority", "server", "identity")}
    ensure(CertificateSettings.read(folders))
    key_path(folder, 0).write_bytes(make_key())
    return folder


def identities(fleet: Bouquet) -> Path:
    return fleet.folder / "bouquet" / "processes" / "identities"


@pytest.mark.parametrize("port", ["CONTROL_PORT", "FLEET_PORT"])
def test_both_apis_speak_tls_with_the_fleets_ca_and_nothing_older_than_1_2(fleet: Bouquet, port: str) -> None:
    address = ("127.0.0.1", int(fleet.environment[port]))

    def version(context: ssl.SSLContext) -> str | None:
        with (
            socket.create_connection(address, 30) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            return secured.version()

    trusting = ssl.create_default_context(cafile=identities(fleet) / CA)
    trusting.set_alpn_protocols(["h2"])
    assert version(trusting) in ("TLSv1.2", "TLSv1.3")
    with pytest.raises(ssl.SSLCertVerificationError):
        version(ssl.create_default_context())
    old = ssl.create_default_context(cafile=identities(fleet) / CA)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        version(old)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (["--insecure"], "no TLS: it spoke plain text, or another protocol"),
        (["--root-certificates", "{ours}", "--auth-supernode-private-key", "{key}"], "{fingerprint}: its key is not"),
        (["--root-certificates", "{ours}"], "it has no key that is enrolled"),
        (["--root-certificates", "{theirs}", "--auth-supernode-private-key", "{node}"], "it left during the TLS"),
        (["--root-certificates", "{ours}", "--auth-supernode-private-key", "{node}"], "a node with its key is still"),
    ],
    ids=["plain text", "unknown key", "no key", "a CA of its own", "the key of a node that is online"],
)
def test_a_refused_supernode_is_named_with_the_reason_in_the_superlinks_log(
    fleet: Bouquet, stranger: Path, how: list[str], why: str
) -> None:
    words = {
        "ours": identities(fleet) / CA,
        "theirs": stranger / CA,
        "key": key_path(stranger, 0),
        "node": key_path(identities(fleet), 0),
        "fingerprint": fingerprint(public_key(key_path(stranger, 0).read_bytes())),
    }
    before = len(fleet.process_log("superlink"))
    command = [
        *(str(BIN / "flower-supernode"), "--superlink", f"127.0.0.1:{fleet.environment['FLEET_PORT']}"),
        *("--max-wait-time", "1", "--isolation", "process", "--clientappio-api-address", "127.0.0.1:0"),
        *(word.format_map(words) for word in how),
    ]
    ended = subprocess.run(command, env=fleet.environment, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode != 0
    assert "SuperNode ID" not in ended.stdout + ended.stderr
    refusals = wait_until(
        lambda: re.findall("refused .*", fleet.process_log("superlink")[before:]),
        "a refusal in the SuperLink's log",
        PATIENCE,
        lambda: fleet.process_log("superlink"),
    )
    assert re.search(r"refused ipv4:127\.0\.0\.1:\d+", refusals[0])
    assert why.format_map(words) in refusals[0]


@pytest.mark.parametrize("trust", ["insecure = true", 'root-certificates = "{theirs}"', ""])
def test_flwr_run_without_the_ca_is_refused(fleet: Bouquet, stranger: Path, trust: str, tmp_path: Path) -> None:
    address = f"127.0.0.1:{fleet.environment['CONTROL_PORT']}"
    trust = trust.format(theirs=stranger / CA)
    (tmp_path / "config.toml").write_text(f'[superlink.without]\naddress = "{address}"\n{trust}\n')
    run = subprocess.run(
        [str(BIN / "flwr"), "run", str(APPS / "noop"), "without"],
        env={**fleet.environment, "FLWR_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert run.returncode != 0
    assert "Successfully started run" not in run.stdout


def test_the_connection_that_up_wrote_runs_an_app_with_no_step_by_hand(fleet: Bouquet) -> None:
    assert printed_json("noop", fleet.submit("noop", "--stream", nodes=1, trips=1))


def test_insecure_is_said_loudly_and_means_what_it_says(start_fleet: StartFleet, tmp_path: Path) -> None:
    settings = {"SUPERNODES": "1", "INSECURE": "1", "EXECUTOR_PRELOAD": "json"}
    with start_fleet("processes", tmp_path, **settings) as bouquet:
        up = bouquet("up")
        assert "bouquet: WARNING: INSECURE=1: no TLS and no authentication" in up.stdout
        assert "bouquet: warning: INSECURE=1: no TLS and no authentication" in bouquet.process_log("superlink")
        assert "insecure = true" in (bouquet.folder / "flwr" / "config.toml").read_text()


# -- What containers may do, and a node elsewhere


@pytest.fixture(scope="module")
def containers(docker: None, start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """Two nodes as containers, whose Fleet API other machines can reach."""
    folder = tmp_path_factory.mktemp("secure-containers")
    settings = {"SUPERNODES": "2", "FLEET_BIND": "0.0.0.0", "SUPERLINK_NAMES": gateway(), "EXECUTOR_PRELOAD": "json"}
    with start_fleet("containers", folder, **settings) as fleet:
        yield fleet


def everything(bouquet: Bouquet) -> list[Container]:
    return bouquet.compose.ps(all=True)


def service(container: Container) -> str:
    return (container.config.labels or {})["com.docker.compose.service"]


def inspect(*names: str) -> str:
    return subprocess.run(["docker", "inspect", *names], capture_output=True, text=True, check=True).stdout


def test_every_container_may_do_little(containers: Bouquet) -> None:
    found = json.loads(inspect(*(container.id for container in everything(containers))))
    assert sorted(c["Config"]["Labels"]["com.docker.compose.service"] for c in found) == [
        *("certificates", "setup", "superlink", "supernode", "supernode")
    ]
    for container in found:
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"] and not host["CapAdd"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["Privileged"] is False
        assert container["Config"]["User"] == "49999:49999"
        assert host["Memory"] > 0 and host["NanoCpus"] > 0 and host["PidsLimit"] > 0
        assert not any("docker.sock" in mount["Source"] for mount in container["Mounts"])


def test_the_kernel_agrees(containers: Bouquet) -> None:
    for container in containers.compose.ps():
        status = str(container.execute(["cat", "/proc/1/status"]))
        assert re.search(r"^Uid:\s+49999", status, re.MULTILINE)
        assert set(re.findall(r"^Cap\w+:\s+(\w+)", status, re.MULTILINE)) == {"0" * 16}
        assert re.search(r"^NoNewPrivs:\s+1", status, re.MULTILINE)


def test_the_control_api_is_published_on_loopback_and_only_the_fleet_api_beyond(containers: Bouquet) -> None:
    found = json.loads(inspect(*(container.id for container in containers.compose.ps())))
    published = {
        (port, binding["HostIp"])
        for container in found
        for port, bindings in (container["HostConfig"]["PortBindings"] or {}).items()
        for binding in bindings
    }
    assert published == {("9093/tcp", "127.0.0.1"), ("9092/tcp", "0.0.0.0")}


CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 10).close()
        print(address, "open")
    except OSError as error:
        print(address, type(error).__name__)
"""


def test_a_neighbour_reaches_the_fleet_api_and_no_other(containers: Bouquet) -> None:
    one, other = containers.compose.ps(["supernode"])
    networks = other.network_settings.networks or {}
    there = networks[f"{containers.project}_fleet"].ip_address
    addresses = ["superlink:9091", "superlink:9092", "superlink:9093", f"{there}:9094"]
    answers = dict(line.split() for line in str(one.execute(["python", "-c", CONNECT, *addresses])).splitlines())
    assert answers == {
        "superlink:9091": "ConnectionRefusedError",
        "superlink:9092": "open",
        "superlink:9093": "ConnectionRefusedError",
        f"{there}:9094": "ConnectionRefusedError",
    }


def secrets(containers: Bouquet) -> dict[str, bytes]:
    """The private keys of the fleet, of each a line that has some of what is secret."""
    found = {}
    for container in containers.compose.ps():
        for name in str(container.execute(["find", "/var/lib/bouquet", "-name", "*.key", "-type", "f"])).split():
            assert str(container.execute(["stat", "-c", "%a", name])).strip() == "600"
            pem = str(container.execute(["cat", name]))
            found[f"{service(container)}:{Path(name).name}"] = pem.splitlines()[-3].encode()
    return found


def test_keys_are_where_they_are_used_and_in_no_image_environment_or_log(containers: Bouquet) -> None:
    keys = secrets(containers)
    assert set(keys) == {f"superlink:{SERVER_KEY}", "supernode:node-0.key", "supernode:node-1.key"}
    images = {container.config.image or "" for container in everything(containers)}
    said = [
        inspect(*(container.id for container in everything(containers))),
        inspect(*images),
        *(subprocess.check_output(["docker", "history", "--no-trunc", image], text=True) for image in images),
        *(str(DockerClient().container.logs(container)) for container in everything(containers)),
        *(str(c.execute(["cat", "/proc/1/environ"])) for c in containers.compose.ps()),
    ]
    for text in said:
        assert "PRIVATE KEY" not in text
        for name, key in keys.items():
            assert key.decode() not in text, name


def test_a_second_up_leaves_every_container_and_key_as_it_was(containers: Bouquet) -> None:
    before = {c.id: c.state.started_at for c in containers.compose.ps()}
    keys = secrets(containers)
    up = containers("up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert {c.id: c.state.started_at for c in containers.compose.ps()} == before
    assert secrets(containers) == keys


@pytest.fixture
def edited_host_module() -> Iterator[str]:
    """The path, inside the package, of a module of the `bouquet` command with a line more."""
    module = PROJECT / "deploy" / "bouquet" / "host" / "doctor.py"
    text = module.read_text(encoding="utf-8")
    module.write_text(f"{text}\n# a test's edit\n", encoding="utf-8")
    try:
        yield "host/doctor.py"
    finally:
        module.write_text(text, encoding="utf-8")


def test_an_edit_of_the_hosts_code_builds_no_image_and_recreates_no_container(
    containers: Bouquet, edited_host_module: str
) -> None:
    def images() -> set[str]:
        return {json.loads(inspect(f"bouquet-{role}:{TAG}"))[0]["Id"] for role in ("superlink", "supernode")}

    before = {c.id: c.state.started_at for c in containers.compose.ps()}, images()
    up = containers("up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert ({c.id: c.state.started_at for c in containers.compose.ps()}, images()) == before
    for container in containers.compose.ps():
        names = str(container.execute(["find", "/opt/bouquet", "-name", "*.py"]))
        assert "/opt/bouquet/lib/bouquet/errors.py" in names
        assert edited_host_module not in names and "/host/" not in names


@pytest.fixture
def elsewhere(containers: Bouquet) -> Iterator[str]:
    with another_network(f"{containers.project}-elsewhere") as name:
        yield name


def test_nodes_in_another_network_join_by_one_command_and_train_until_they_are_revoked_or_removed(
    containers: Bouquet, elsewhere: str
) -> None:
    joined = containers("join-command", "--nodes", "2", "--name", "north")
    assert joined.returncode == 0, joined.stderr
    assert f"docker save bouquet-supernode:{TAG}" in joined.stderr
    start_elsewhere(joined.stdout.replace("bouquet-north-", f"{elsewhere}-node-"), elsewhere)
    one, two = (f"{elsewhere}-node-{number}" for number in (1, 2))
    for node in json.loads(inspect(one, two)):
        assert list(node["NetworkSettings"]["Networks"]) == [elsewhere]
        assert "PRIVATE KEY" not in json.dumps(node)
    wait_until(
        lambda: [node["State"]["Health"]["Status"] for node in json.loads(inspect(one, two))] == ["healthy"] * 2,
        "the nodes that joined are healthy",
        2 * PATIENCE,
    )

    nodes = containers.nodes()
    assert {nodes[name]["partition-id"] for name in ("north-1", "north-2")} == {"2", "3"}
    for name in ("north-1", "north-2"):
        assert (nodes[name]["status"], nodes[name]["site"]) == ("online", "elsewhere")
    assert sorted(node["partition-id"] for node in nodes.values() if node["site"] == "this machine") == ["0", "1"]

    run = containers("run", RUN_CONFIG="num-server-rounds=1 fraction-train=1.0")
    assert run.returncode == 0, run.stdout + run.stderr
    metrics = json.loads((containers.results / "latest" / "metrics.json").read_text())
    trained = metrics["rounds"][0]["train"]["nodes"]
    assert sorted(node["partition-id"] for node in trained.values()) == [0, 1, 2, 3]

    removal = containers("nodes", "remove", "north-1")
    assert removal.returncode == FleetError.exit_code
    assert re.search("north-1 .* is online; stop it .* or cut it off: bouquet nodes revoke north-1", removal.stderr)
    assert containers("nodes", "revoke", "north-1").returncode == 0
    wait_until(lambda: json.loads(inspect(one))[0]["RestartCount"], "the revoked node was cut off", 15)
    (superlink,) = containers.compose.ps(["superlink"])
    refusal = f"with key {nodes['north-1']['key']}: its key is not enrolled"
    wait_until(
        lambda: refusal in str(DockerClient().container.logs(superlink)), "the revoked node was refused", PATIENCE
    )
    left = containers.nodes()
    assert "north-1" not in left
    assert left["north-2"]["status"] == "online"

    assert containers("nodes", "name", left["north-2"]["key"][:20], "north").returncode == 0
    DockerClient().container.stop(two)
    assert wait_until(lambda: containers.nodes()["north"]["status"] == "offline", "the node has left", PATIENCE)
    assert containers("nodes", "remove", "north").returncode == 0
    assert sorted(node["partition-id"] for node in containers.nodes().values()) == ["0", "1"]
