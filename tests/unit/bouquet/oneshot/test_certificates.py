"""Certificates: issued once, kept while valid, renewed in time, written atomically; the user's own are checked."""

import datetime
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from bouquet.contract.tls_files import CA, CA_KEY, SERVER, SERVER_KEY
from bouquet.errors import SettingError
from bouquet.files import write_if_changed
from bouquet.oneshot.certificates import NAMES, ensure
from bouquet.settings.oneshot import CertificateSettings

NOW = datetime.datetime(2026, 11, 25, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def settings(folder: Path, **environment: str) -> CertificateSettings:
    folders = {f"BOUQUET_{kind.upper()}_DIR": str(folder / kind) for kind in ("authority", "server", "identity")}
    return CertificateSettings.read({**folders, **environment})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(path: Path) -> set[str]:
    found = certificate(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))}


def test_keys_are_for_their_owner_only_and_nodes_get_the_ca_certificate_alone(tmp_path: Path) -> None:
    os.umask(0o022)
    ensure(settings(tmp_path), NOW)
    assert (tmp_path / "authority" / CA_KEY).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "server" / SERVER_KEY).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "identity").iterdir()] == [CA]
    assert CA_KEY not in [path.name for path in (tmp_path / "server").iterdir()]


def test_the_certificate_is_for_the_fleets_names_and_those_given(tmp_path: Path) -> None:
    ensure(settings(tmp_path, SUPERLINK_NAMES="fleet.example.org, 192.0.2.7"), NOW)
    assert names(tmp_path / "server" / SERVER) == {*NAMES, "fleet.example.org", "192.0.2.7"}


def test_openssl_accepts_the_chain(tmp_path: Path) -> None:
    ensure(settings(tmp_path))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server" / SERVER, tmp_path / "server" / SERVER_KEY)
    client = ssl.create_default_context(cafile=tmp_path / "identity" / CA)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = context.wrap_bio(incoming, outgoing, server_side=True)
    other = client.wrap_bio(outgoing, incoming, server_hostname="superlink")
    for side in (other, one, other, one):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert other.version() in ("TLSv1.2", "TLSv1.3")


def test_a_valid_certificate_is_kept(tmp_path: Path) -> None:
    ensure(settings(tmp_path), NOW)
    before = contents(tmp_path)
    assert ensure(settings(tmp_path), NOW + 300 * DAY) == "certificates: valid until 2027-12-27"
    assert contents(tmp_path) == before


def test_a_certificate_is_renewed_by_the_same_ca_before_it_expires(tmp_path: Path) -> None:
    ensure(settings(tmp_path), NOW)
    ca, old = (tmp_path / "server" / CA).read_bytes(), certificate(tmp_path / "server" / SERVER)
    ensure(settings(tmp_path), old.not_valid_after_utc - 29 * DAY)
    new = certificate(tmp_path / "server" / SERVER)
    assert new.not_valid_after_utc > old.not_valid_after_utc
    assert (tmp_path / "server" / CA).read_bytes() == ca


def test_a_ca_that_would_expire_before_what_it_signs_is_replaced(tmp_path: Path) -> None:
    ensure(settings(tmp_path), NOW)
    ca = (tmp_path / "server" / CA).read_bytes()
    ensure(settings(tmp_path), NOW + 3400 * DAY)
    assert (tmp_path / "server" / CA).read_bytes() != ca
    assert (tmp_path / "identity" / CA).read_bytes() == (tmp_path / "server" / CA).read_bytes()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda server: (server / SERVER_KEY).unlink(), "there was none"),
        (lambda server: (server / SERVER).write_text("half a"), "server.pem is not a certificate in PEM format"),
    ],
)
def test_a_damaged_certificate_is_replaced_and_the_reason_is_given(spoil: object, why: str, tmp_path: Path) -> None:
    ensure(settings(tmp_path), NOW)
    assert callable(spoil)
    spoil(tmp_path / "server")
    assert why in ensure(settings(tmp_path), NOW)
    assert ensure(settings(tmp_path), NOW) == "certificates: valid until 2027-12-27"


def test_a_new_name_causes_a_new_certificate(tmp_path: Path) -> None:
    ensure(settings(tmp_path), NOW)
    summary = ensure(settings(tmp_path, SUPERLINK_NAMES="elsewhere"), NOW)
    assert "server.pem is not valid for elsewhere" in summary
    assert "elsewhere" in names(tmp_path / "server" / SERVER)


def test_an_invalid_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="SUPERLINK_NAMES=no_name!: neither a host name nor an IP address"):
        ensure(settings(tmp_path, SUPERLINK_NAMES="no_name!"), NOW)


def test_a_file_is_replaced_atomically(tmp_path: Path) -> None:
    write_if_changed(tmp_path / "file", b"one")
    held = (tmp_path / "file").open("rb")
    write_if_changed(tmp_path / "file", b"other", 0o600)
    assert held.read() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def user_dir(tmp_path: Path) -> Path:
    """The user's folder: valid certificates, by another CA than the fleet's."""
    ensure(settings(tmp_path / "elsewhere"), NOW)
    return tmp_path / "elsewhere" / "server"


def test_the_users_own_certificates_are_used(user_dir: Path, tmp_path: Path) -> None:
    summary = ensure(settings(tmp_path, CERTIFICATES=str(user_dir)), NOW)
    assert summary == f"certificates: your own, valid until 2027-12-27 (CERTIFICATES={user_dir})"
    assert contents(tmp_path / "server") == contents(user_dir)
    assert (tmp_path / "identity" / CA).read_bytes() == (user_dir / CA).read_bytes()
    assert not (tmp_path / "authority").exists()
    ensure(settings(tmp_path), NOW)
    assert (tmp_path / "server" / CA).read_bytes() != (user_dir / CA).read_bytes(), "unset again: the fleet's CA"


def test_unusable_certificates_of_the_user_are_refused_with_the_reason(user_dir: Path, tmp_path: Path) -> None:
    def problem(now: datetime.datetime = NOW) -> str:
        with pytest.raises(SettingError) as refused:
            ensure(settings(tmp_path, CERTIFICATES=str(user_dir)), now)
        assert refused.value.message.startswith(f"CERTIFICATES={user_dir}: ")
        assert "server.key" in refused.value.hint
        return refused.value.message.removeprefix(f"CERTIFICATES={user_dir}: ")

    assert problem(NOW + 500 * DAY) == "server.pem expired on 2027-12-27"
    assert problem(NOW - 9 * DAY) == "ca.crt is not valid before 2026-11-24"
    ensure(settings(tmp_path / "third"), NOW)
    for name, complaint in (
        (SERVER_KEY, "server.key does not match server.pem"),
        (CA, "server.pem is not signed by ca.crt"),
    ):
        kept = (user_dir / name).read_bytes()
        (user_dir / name).write_bytes((tmp_path / "third" / "server" / name).read_bytes())
        assert problem() == complaint
        (user_dir / name).write_bytes(kept)
    (user_dir / SERVER).unlink()
    assert problem() == "server.pem is missing"
