"""The doctor: each check says what it found or what to do, and one that fails does not hide the others."""

import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bouquet.errors import FleetError, HostError
from bouquet.host import doctor
from bouquet.host.bootstrap import compose_plugin
from bouquet.host.doctor import Finding, Hub, examine
from bouquet.host.fleet.base import Member
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.conftest import Install

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock(Hub):
    """A hub whose clock differs from this one's."""

    def __init__(self, ahead: float | None, trouble: str = "") -> None:
        super().__init__(offline=False)
        self._answer = (trouble, ahead)


def meminfo(tmp_path: Path, mib: int) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal:       99999999 kB\nMemAvailable:   {mib * 1024} kB\n")
    return path


def test_every_check_is_made_and_says_ok_or_what_to_do() -> None:
    def broken() -> str:
        raise HostError("no memory", "buy some")

    findings = list(examine({"first": broken, "second": lambda: "there"}))
    assert findings == [Finding("first", False, "no memory; buy some"), Finding("second", True, "there")]
    assert [str(finding).split()[0] for finding in findings] == ["WRONG", "ok"]


def test_memory_is_held_against_the_number_of_nodes(tmp_path: Path) -> None:
    path = meminfo(tmp_path, 4000)
    assert doctor.memory(3, up=False, meminfo=path).startswith("4000 MiB free, 3 SuperNodes take about 2900 MiB")
    with pytest.raises(HostError, match=r"4000 MiB free, 10 SuperNodes take about 7800 MiB; 4 fit: SUPERNODES=4"):
        doctor.memory(10, up=False, meminfo=path)
    with pytest.raises(HostError, match="end what takes memory"):
        doctor.memory(1, up=False, meminfo=meminfo(tmp_path, 500))


def test_a_fleet_that_is_up_has_its_memory_and_its_ports(tmp_path: Path) -> None:
    assert "has its memory" in doctor.memory(10, up=True, meminfo=meminfo(tmp_path, 500))
    assert "9093 (CONTROL_PORT), 9092 (FLEET_PORT): the fleet's" in doctor.ports(HostSettings.read({}), up=True)


def test_a_docker_that_does_not_answer_is_told_in_its_words(install: Install) -> None:
    install(docker="echo 20.10.24")
    assert doctor.docker() == "20.10.24 answers"
    install(docker="echo 'permission denied' >&2; exit 1")
    with pytest.raises(HostError, match="permission denied; start Docker"):
        doctor.docker()


def test_a_missing_compose_is_wrong_only_where_make_cannot_get_it(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(docker="exit 0")
    assert doctor.compose() == "v2 and buildx found"
    monkeypatch.setattr(compose_plugin, "KEYRING", tmp_path / "docker")
    install(docker="exit 1", dpkg="", **{"apt-get": ""})
    assert "docker-compose and docker-buildx missing: `make up` takes them from Debian" in doctor.compose()
    (tmp_path / "apt-get").unlink()
    with pytest.raises(HostError, match=r"no Debian to take them from \(apt-get missing\); install Docker Compose"):
        doctor.compose()


def test_too_little_disk_is_what_make_up_would_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("usage", (), {"free": 1}))
    [finding] = examine({"disk": doctor.disk})
    assert not finding.ok
    assert "5 GiB needed" in finding.says


def test_gpus_that_are_too_small_are_wrong_and_none_is_fine(install: Install) -> None:
    install()
    assert "on the CPU (GPUS=none)" in doctor.gpus(HostSettings.read({"GPUS": "none"}), containers=True)
    [finding] = examine({"gpus": lambda: doctor.gpus(HostSettings.read({"GPUS": "0:2GiB"}), containers=True)})
    assert (finding.ok, "too many for the GPUs" in finding.says) == (False, True)


def test_a_dataset_folder_needs_images(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"DATASET=.*no \.parquet file in it; give a folder in the layout"):
        doctor.data(tmp_path, Clock(0))
    (tmp_path / "plain_text").mkdir()
    (tmp_path / "plain_text" / "train-0.parquet").touch()
    assert doctor.data(tmp_path, Clock(0)) == f"{tmp_path} (DATASET)"


def test_without_the_hub_it_is_the_sample_and_how_to_have_more_is_said() -> None:
    assert doctor.data(None, Clock(0)) == "uoft-cs/cifar10, the hub answers"
    says = doctor.data(None, Clock(None, "the hub does not answer (timed out)"))
    assert says.startswith("the shipped sample, as the hub does not answer (timed out); ")
    assert "DATASET=path" in says
    assert "as HF_HUB_OFFLINE=1" in doctor.data(None, Hub(offline=True))


def test_a_clock_that_the_superlink_would_not_take_is_wrong() -> None:
    assert doctor.clock(Clock(1.0)) == "within 3 s of the hub's"
    assert doctor.clock(Clock(-60.0)) == "60 s behind the hub's"
    with pytest.raises(HostError, match="the clock is 40 s ahead of the hub's; set it"):
        doctor.clock(Clock(40.0))
    with pytest.raises(HostError, match="the clock is 300 s behind the hub's; set it"):
        doctor.clock(Clock(-300.0))


def test_without_the_hub_the_kernel_says_whether_the_clock_is_kept() -> None:
    assert doctor.clock(Clock(None), kept=lambda: True).endswith("UTC, kept by NTP")
    assert "which matters to nodes on other machines" in doctor.clock(Clock(None), kept=lambda: False)
    assert doctor.clock_is_kept() in (True, False)


@pytest.fixture
def late_hub() -> Iterator[str]:
    """A server whose clock is an hour behind."""

    class Late(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True))
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Late) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_hub_is_asked_for_its_time(late_hub: str) -> None:
    trouble, ahead = Hub(offline=False, url=late_hub).ask()
    assert trouble == ""
    assert ahead == pytest.approx(3600, abs=30)


def test_a_hub_that_does_not_answer_is_no_error() -> None:
    trouble, ahead = Hub(offline=False, url="http://127.0.0.1:9/").ask()
    assert trouble.startswith("the hub does not answer (")
    assert ahead is None


def key_and_certificate(end: datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(end - timedelta(days=90)).not_valid_after(end)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def certificate(end: datetime) -> bytes:
    return key_and_certificate(end)[1]


def test_a_certificate_is_wrong_before_it_ends() -> None:
    assert doctor.lasts("it", certificate(NOW + timedelta(days=60)), NOW) == "until 2026-03-02"
    with pytest.raises(HostError, match="it ends on 2026-01-06, in 5 days; have it renewed"):
        doctor.lasts("it", certificate(NOW + timedelta(days=5)), NOW)
    with pytest.raises(HostError, match="it ended on 2025-12-31; have it renewed"):
        doctor.lasts("it", certificate(NOW - timedelta(days=1)), NOW)
    with pytest.raises(HostError, match="it: no certificate"):
        doctor.lasts("it", b"nothing", NOW)


def connection(home: Path, ca: bytes | None) -> HostSettings:
    (home / "ca.crt").write_bytes(ca or b"")
    trusts = f'root-certificates = "{home / "ca.crt"}"' if ca else "insecure = true"
    (home / "config.toml").write_text(f'[superlink.local-deployment]\naddress = "127.0.0.1:1"\n{trusts}\n')
    return HostSettings.read({"FLWR_HOME": str(home), "CONTROL_PORT": "1"})


def test_the_ca_of_the_connection_is_looked_at(tmp_path: Path) -> None:
    good, old = certificate(NOW + timedelta(days=60)), certificate(NOW - timedelta(days=1))
    assert doctor.certificates(connection(tmp_path, good), False, NOW) == "the CA's until 2026-03-02"
    with pytest.raises(HostError, match=r"the CA .*ca.crt ended on 2025-12-31"):
        doctor.certificates(connection(tmp_path, old), False, NOW)
    assert doctor.certificates(connection(tmp_path, None), False, NOW) == "none: the connection is without TLS"
    (tmp_path / "config.toml").unlink()
    assert "none yet" in doctor.certificates(HostSettings.read({"FLWR_HOME": str(tmp_path)}), False, NOW)


def test_a_superlink_that_shows_no_certificate_is_wrong(tmp_path: Path) -> None:
    settings = connection(tmp_path, certificate(NOW + timedelta(days=60)))
    with pytest.raises(HostError, match="TLS at port 1 with .*refused; start the fleet anew"):
        doctor.certificates(settings, True, NOW)


@pytest.fixture
def tls_server() -> Iterator[int]:
    """A gRPC server whose certificate ends in 20 days."""
    pair = key_and_certificate(datetime.now(UTC) + timedelta(days=20))
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield port
    server.stop(None).wait()


def test_the_certificate_that_the_superlink_shows_is_looked_at(tls_server: int, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    connection(tmp_path, certificate(now + timedelta(days=60)))
    settings = HostSettings.read({"FLWR_HOME": str(tmp_path), "CONTROL_PORT": str(tls_server)})
    assert f"the SuperLink's until {now + timedelta(days=20):%Y-%m-%d}" in doctor.certificates(settings, True, now)
    with pytest.raises(HostError, match="the certificate of the SuperLink ends on"):
        doctor.certificates(settings, True, now + timedelta(days=10))


def test_a_fleet_that_is_up_but_not_healthy_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fleet = ProcessFleet(HostSettings.read({"BOUQUET_HOME": str(tmp_path)}))
    monkeypatch.setattr(fleet, "members", lambda: [Member("node-1", "supernode", "restarting")])
    with pytest.raises(FleetError, match=r"not healthy: node-1 \(restarting\); the whole story: make logs"):
        doctor.nodes(fleet, 1)


def test_a_machine_without_docker_is_examined_for_processes(install: Install, tmp_path: Path) -> None:
    install()
    checks = doctor.checks(HostSettings.read({"BOUQUET_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}))
    assert set(checks) == {"fleet", "memory", "disk", "ports", "gpus", "data", "clock", "certificates"}
    assert checks["fleet"]() == "10 SuperNodes as local processes, because no Docker daemon answers"
