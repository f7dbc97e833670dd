"""The doctor: each check returns what it found or how to fix it; a failed check does not hide the others."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bouquet.errors import FleetError, HostError
from bouquet.host import doctor
from bouquet.host.bootstrap import compose_plugin
from bouquet.host.doctor import CheckResult, run_checks
from bouquet.host.fleet.base import Member
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.host.hub import HubAnswer, probe_hub
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.conftest import Install

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def hub(ahead: float | None = None, problem: str = "") -> Callable[[], HubAnswer]:
    """Return the probe of a hub whose clock differs from this one's."""
    return lambda: HubAnswer(problem, ahead)


@pytest.fixture
def available(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the MiB of memory that are available."""

    def set_available(mib: int) -> None:
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=mib * doctor.MIB))

    return set_available


def test_every_check_runs_and_says_ok_or_how_to_fix_it() -> None:
    def broken() -> str:
        raise HostError("no memory", "buy some")

    results = list(run_checks({"first": broken, "second": lambda: "there"}))
    assert results == [CheckResult("first", False, "no memory; buy some"), CheckResult("second", True, "there")]
    assert [str(result).split()[0] for result in results] == ["FAILED", "ok"]


def test_the_available_memory_is_compared_with_the_number_of_nodes(available: Callable[[int], None]) -> None:
    available(4000)
    assert doctor.memory(3, up=False).startswith("4000 MiB available, 3 SuperNodes use about 2900 MiB")
    with pytest.raises(HostError, match=r"4000 MiB available, 10 SuperNodes use about 7800 MiB; 4 fit: SUPERNODES=4"):
        doctor.memory(10, up=False)
    available(500)
    with pytest.raises(HostError, match="free some memory"):
        doctor.memory(1, up=False)


def test_a_fleet_that_is_up_has_its_memory_and_its_ports(available: Callable[[int], None]) -> None:
    available(500)
    assert "has its memory" in doctor.memory(10, up=True)
    ports = doctor.ports(HostSettings.read({}), up=True)
    assert "9093 (CONTROL_PORT), 9092 (FLEET_PORT): used by the running fleet" in ports


def test_a_docker_that_does_not_answer_fails_with_its_own_message(install: Install) -> None:
    install(docker="echo 20.10.24")
    assert doctor.docker() == "20.10.24 answers"
    install(docker="echo 'permission denied' >&2; exit 1")
    with pytest.raises(HostError, match="permission denied; start Docker"):
        doctor.docker()


def test_a_missing_compose_fails_only_where_make_cannot_install_it(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(docker="exit 0")
    assert doctor.compose() == "v2 and buildx found"
    monkeypatch.setattr(compose_plugin, "KEYRING", tmp_path / "docker")
    install(docker="exit 1", dpkg="", **{"apt-get": ""})
    assert "docker-compose and docker-buildx missing: `make up` installs them from Debian" in doctor.compose()
    (tmp_path / "apt-get").unlink()
    with pytest.raises(HostError, match=r"cannot download from Debian \(apt-get missing\); install Docker Compose"):
        doctor.compose()


def test_too_little_disk_is_what_make_up_would_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("usage", (), {"free": 1}))
    [result] = run_checks({"disk": doctor.disk})
    assert not result.ok
    assert "5 GiB needed" in result.message


def test_gpus_that_are_too_small_fail_and_no_gpus_pass(install: Install) -> None:
    install()
    assert "on the CPU (GPUS=none)" in doctor.gpus(HostSettings.read({"GPUS": "none"}), containers=True)
    [result] = run_checks({"gpus": lambda: doctor.gpus(HostSettings.read({"GPUS": "0:2GiB"}), containers=True)})
    assert (result.ok, "too many for the GPUs" in result.message) == (False, True)


def test_a_dataset_folder_needs_images(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"DATASET=.*no \.parquet file in this folder; give a folder in the layout"):
        doctor.data(tmp_path, hub(0))
    (tmp_path / "plain_text").mkdir()
    (tmp_path / "plain_text" / "train-0.parquet").touch()
    assert doctor.data(tmp_path, hub(0)) == f"{tmp_path} (DATASET)"


def test_without_the_hub_the_sample_is_used_and_the_message_says_how_to_use_more() -> None:
    assert doctor.data(None, hub(0)) == "uoft-cs/cifar10, the hub answers"
    says = doctor.data(None, hub(problem="the hub does not answer (timed out)"))
    assert says.startswith("the shipped sample, because the hub does not answer (timed out); ")
    assert "DATASET=path" in says
    assert "because HF_HUB_OFFLINE=1" in doctor.data(None, lambda: probe_hub(offline=True))


def test_a_clock_that_the_superlink_would_refuse_fails() -> None:
    assert doctor.clock(hub(1.0)) == "within 3 s of the hub's"
    assert doctor.clock(hub(-60.0)) == "60 s behind the hub's"
    with pytest.raises(HostError, match="the clock is 40 s ahead of the hub's; synchronize it"):
        doctor.clock(hub(40.0))
    with pytest.raises(HostError, match="the clock is 300 s behind the hub's; synchronize it"):
        doctor.clock(hub(-300.0))


def test_without_the_hub_the_kernel_says_whether_the_clock_is_synchronized() -> None:
    assert doctor.clock(hub(None), synchronized=lambda: True).endswith("UTC, synchronized by NTP")
    assert "which nodes on other machines need" in doctor.clock(hub(None), synchronized=lambda: False)
    assert doctor.clock_is_synchronized() in (True, False)


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


def test_a_certificate_fails_some_days_before_it_ends() -> None:
    assert doctor.valid_until("it", certificate(NOW + timedelta(days=60)), NOW) == "2026-03-02"
    with pytest.raises(HostError, match="it ends on 2026-01-06, in 5 days; renew it"):
        doctor.valid_until("it", certificate(NOW + timedelta(days=5)), NOW)
    with pytest.raises(HostError, match="it ended on 2025-12-31; renew it"):
        doctor.valid_until("it", certificate(NOW - timedelta(days=1)), NOW)
    with pytest.raises(HostError, match="it: not a certificate"):
        doctor.valid_until("it", b"nothing", NOW)


def connection(home: Path, ca: bytes | None) -> HostSettings:
    (home / "ca.crt").write_bytes(ca or b"")
    trusts = f'root-certificates = "{home / "ca.crt"}"' if ca else "insecure = true"
    (home / "config.toml").write_text(f'[superlink.local-deployment]\naddress = "127.0.0.1:1"\n{trusts}\n')
    return HostSettings.read({"FLWR_HOME": str(home), "CONTROL_PORT": "1"})


def test_the_ca_of_the_connection_is_checked(tmp_path: Path) -> None:
    good, old = certificate(NOW + timedelta(days=60)), certificate(NOW - timedelta(days=1))
    assert doctor.certificates(connection(tmp_path, good), False, NOW) == "the CA is valid until 2026-03-02"
    with pytest.raises(HostError, match=r"the CA .*ca.crt ended on 2025-12-31"):
        doctor.certificates(connection(tmp_path, old), False, NOW)
    assert doctor.certificates(connection(tmp_path, None), False, NOW) == "none: the connection is without TLS"
    (tmp_path / "config.toml").unlink()
    assert "none yet" in doctor.certificates(HostSettings.read({"FLWR_HOME": str(tmp_path)}), False, NOW)


def test_a_superlink_that_shows_no_certificate_fails(tmp_path: Path) -> None:
    settings = connection(tmp_path, certificate(NOW + timedelta(days=60)))
    with pytest.raises(HostError, match="TLS at port 1 with .*refused; start the fleet again"):
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


def test_the_certificate_that_the_superlink_shows_is_checked(tls_server: int, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    connection(tmp_path, certificate(now + timedelta(days=60)))
    settings = HostSettings.read({"FLWR_HOME": str(tmp_path), "CONTROL_PORT": str(tls_server)})
    end = f"{now + timedelta(days=20):%Y-%m-%d}"
    assert f"the SuperLink's certificate until {end}" in doctor.certificates(settings, True, now)
    with pytest.raises(HostError, match="the certificate of the SuperLink ends on"):
        doctor.certificates(settings, True, now + timedelta(days=10))


def test_a_fleet_that_is_up_but_not_healthy_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fleet = ProcessFleet(HostSettings.read({"BOUQUET_HOME": str(tmp_path)}))
    monkeypatch.setattr(fleet, "members", lambda: [Member("node-1", "supernode", "restarting")])
    with pytest.raises(FleetError, match=r"not healthy: node-1 \(restarting\); full logs: make logs"):
        doctor.nodes(fleet, 1)


def test_a_machine_without_docker_is_examined_for_processes(install: Install, tmp_path: Path) -> None:
    install()
    checks = doctor.select_checks(HostSettings.read({"BOUQUET_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}))
    assert set(checks) == {"fleet", "memory", "disk", "ports", "gpus", "data", "clock", "certificates"}
    assert checks["fleet"]() == "10 SuperNodes as local processes, because no Docker daemon answers"
