"""When certificates end."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bouquet.errors import HostError
from bouquet.host.checks.certificate_expiry import certificates, valid_until
from bouquet.settings.host import HostSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


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
    assert valid_until("it", certificate(NOW + timedelta(days=60)), NOW) == "2026-03-02"
    with pytest.raises(HostError, match="it ends on 2026-01-06, in 5 days; renew it"):
        valid_until("it", certificate(NOW + timedelta(days=5)), NOW)
    with pytest.raises(HostError, match="it ended on 2025-12-31; renew it"):
        valid_until("it", certificate(NOW - timedelta(days=1)), NOW)
    with pytest.raises(HostError, match="it: not a certificate"):
        valid_until("it", b"nothing", NOW)


def connection(home: Path, ca: bytes | None) -> HostSettings:
    (home / "ca.crt").write_bytes(ca or b"")
    trusts = f'root-certificates = "{home / "ca.crt"}"' if ca else "insecure = true"
    (home / "config.toml").write_text(f'[superlink.local-deployment]\naddress = "127.0.0.1:1"\n{trusts}\n')
    return HostSettings.read({"FLWR_HOME": str(home), "CONTROL_PORT": "1"})


def test_the_ca_of_the_connection_is_checked(tmp_path: Path) -> None:
    good, old = certificate(NOW + timedelta(days=60)), certificate(NOW - timedelta(days=1))
    assert certificates(connection(tmp_path, good), False, NOW) == "the CA is valid until 2026-03-02"
    with pytest.raises(HostError, match=r"the CA .*ca.crt ended on 2025-12-31"):
        certificates(connection(tmp_path, old), False, NOW)
    assert certificates(connection(tmp_path, None), False, NOW) == "none: the connection is without TLS"
    (tmp_path / "config.toml").unlink()
    assert "none yet" in certificates(HostSettings.read({"FLWR_HOME": str(tmp_path)}), False, NOW)


def test_a_superlink_that_shows_no_certificate_fails(tmp_path: Path) -> None:
    settings = connection(tmp_path, certificate(NOW + timedelta(days=60)))
    with pytest.raises(HostError, match="TLS at port 1 with .*refused; start the fleet again"):
        certificates(settings, True, NOW)


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
    assert f"the SuperLink's certificate until {end}" in certificates(settings, True, now)
    with pytest.raises(HostError, match="the certificate of the SuperLink ends on"):
        certificates(settings, True, now + timedelta(days=10))
