"""TLS for a fleet: a CA of its own and the SuperLink's certificate, or the operator's, as files that stay valid.

Three folders, each with its readers (docs/decisions/0011-secure-by-default.md):

    authority    ca.key, ca.crt                       this module alone
    server       server.key, server.pem, ca.crt       the SuperLink
    identities   ca.crt, later a key for each node    the SuperNodes

What is valid stays as it is; what ends soon, is damaged or lacks a name is made anew. Each file is written whole or
not at all, keys readable by their owner only.
"""

import datetime
import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bouquet.contract.tls_files import CA, CA_KEY, SERVER, SERVER_KEY
from bouquet.errors import SettingError, report_errors
from bouquet.files import write_if_changed
from bouquet.settings.oneshot import CertificateSettings

OWN_HINT = f"give a folder with {CA}, {SERVER} and {SERVER_KEY}, or leave CERTIFICATES out"

NAMES = ("superlink", "control", "localhost", "127.0.0.1")
"""By which the fleet itself and `flwr` on this machine reach the SuperLink."""

CA_LIFE = datetime.timedelta(days=3650)
SERVER_LIFE = datetime.timedelta(days=397)  # the longest that browsers accept
RENEWAL = datetime.timedelta(days=30)  # before the end
SKEW = datetime.timedelta(days=1)  # a clock that is slow need not wait for a certificate to begin

Key = ec.EllipticCurvePrivateKey


class UnfitError(Exception):
    """A certificate cannot be used, and why."""


def ensure(settings: CertificateSettings, now: datetime.datetime | None = None) -> str:
    """Make sure that the SuperLink has a valid certificate; return in one line what was found or done.

    Raises
    ------
    SettingError
        The operator's own certificates cannot be used, or a name is none.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    if settings.user_dir is not None:
        return _adopt(settings, now)
    names = [*NAMES, *settings.names]
    server = settings.directories.server
    try:
        end = _check(server, names, now, RENEWAL)
        if (server / CA).read_bytes() != (settings.directories.authority / CA).read_bytes():
            raise UnfitError("the one there is not of this fleet's CA")
        write_if_changed(settings.directories.identities / CA, (server / CA).read_bytes())
        return f"certificates: valid until {end:%Y-%m-%d}"
    except (UnfitError, FileNotFoundError) as error:
        why = str(error) if isinstance(error, UnfitError) else "there was none"
    ca, ca_key = _authority(settings.directories.authority, now)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _issue_server(names, key, ca, ca_key, now)
    _install(settings, _pem(ca), _pem(certificate), _key_pem(key))
    return (
        f"certificates: made one for {', '.join(names)}, valid until {certificate.not_valid_after_utc:%Y-%m-%d} ({why})"
    )


def check_user_certificates(folder: Path, shown: str, now: datetime.datetime | None = None) -> datetime.datetime:
    """Return when the operator's own certificate ends.

    Raises
    ------
    SettingError
        It cannot be used: a file is missing, it has ended, its key is another's, it lacks a name.
    """
    try:
        return _check(folder, NAMES, now or datetime.datetime.now(datetime.UTC), datetime.timedelta())
    except FileNotFoundError as error:
        raise SettingError("CERTIFICATES", shown, f"{Path(error.filename).name} is missing", OWN_HINT) from None
    except PermissionError as error:
        raise SettingError(
            "CERTIFICATES",
            shown,
            f"{Path(error.filename).name} may not be read by uid {os.getuid()}",
            f"let it: setfacl -m u:{os.getuid()}:r {SERVER_KEY}",
        ) from None
    except UnfitError as error:
        raise SettingError("CERTIFICATES", shown, str(error), OWN_HINT) from None


def _adopt(settings: CertificateSettings, now: datetime.datetime) -> str:
    assert settings.user_dir is not None  # noqa: S101  for mypy
    end = check_user_certificates(settings.user_dir, settings.user_dir_label, now)
    _install(settings, *((settings.user_dir / name).read_bytes() for name in (CA, SERVER, SERVER_KEY)))
    return f"certificates: yours, valid until {end:%Y-%m-%d} (CERTIFICATES={settings.user_dir_label})"


def _install(settings: CertificateSettings, ca: bytes, certificate: bytes, key: bytes) -> None:
    # The key first: a certificate that is there has its key, save for the moment in between, which `_check` sees.
    server = settings.directories.server
    write_if_changed(server / SERVER_KEY, key, 0o600)
    write_if_changed(server / SERVER, certificate)
    write_if_changed(server / CA, ca)
    write_if_changed(settings.directories.identities / CA, ca)


def _check(folder: Path, names: Iterable[str], now: datetime.datetime, margin: datetime.timedelta) -> datetime.datetime:
    """Return when the server's certificate in a folder ends; raise `UnfitError` where it does not serve."""
    ca, certificate = _read_certificate(folder / CA), _read_certificate(folder / SERVER)
    key = _read_key(folder / SERVER_KEY)
    if key.public_key() != certificate.public_key():
        raise UnfitError(f"{SERVER_KEY} is not the key of {SERVER}")
    _check_signed_by(certificate, folder / SERVER, _pem(ca))
    for name, found in ((CA, ca), (SERVER, certificate)):
        if found.not_valid_after_utc <= now + margin:
            tense = "ended" if found.not_valid_after_utc <= now else "ends"
            raise UnfitError(f"{name} {tense} on {found.not_valid_after_utc:%Y-%m-%d}")
        if found.not_valid_before_utc > now:
            raise UnfitError(f"{name} is not valid before {found.not_valid_before_utc:%Y-%m-%d}")
    if missing := sorted(set(map(str, names)) - _names(certificate)):
        raise UnfitError(f"{SERVER} is not for {', '.join(missing)}")
    return certificate.not_valid_after_utc


def _check_signed_by(certificate: x509.Certificate, path: Path, ca: bytes) -> None:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
    except (ValueError, TypeError, InvalidSignature):
        raise UnfitError(f"{path.name} is not signed by {CA}") from None


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise UnfitError(f"{path.name} is no certificate in PEM format") from None


def _read_key(path: Path) -> Key:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise UnfitError(f"{path.name} is no private key in PEM format without a password") from None
    return key  # type: ignore[return-value]  # of whatever kind: compared by its public key only


def _authority(folder: Path, now: datetime.datetime) -> tuple[x509.Certificate, Key]:
    """Return the CA, which must outlive what it signs; made where there is none."""
    try:
        ca, key = _read_certificate(folder / CA), _read_key(folder / CA_KEY)
        if key.public_key() == ca.public_key() and ca.not_valid_after_utc > now + SERVER_LIFE:
            return ca, key
    except (UnfitError, FileNotFoundError):
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Bouquet CA")])
    ca = (
        _builder(name, name, key.public_key(), key.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_if_changed(folder / CA_KEY, _key_pem(key), 0o600)
    write_if_changed(folder / CA, _pem(ca))
    return ca, key


def _issue_server(
    names: Sequence[str], key: Key, ca: x509.Certificate, ca_key: Key, now: datetime.datetime
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Bouquet SuperLink")])
    return (
        _builder(subject, ca.subject, key.public_key(), ca_key.public_key(), now, SERVER_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(list(map(_general_name, names))), critical=False)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(**yes: bool) -> x509.KeyUsage:
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: yes.get(name, False) for name in every})


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*", name):
        raise SettingError(
            "SUPERLINK_NAMES",
            name,
            "neither a host name nor an IP address",
            "give names by which other machines reach this one, for example SUPERLINK_NAMES=fleet.example.org",
        )
    return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def main() -> None:
    """Make sure of the certificates, and say so."""
    sys.stderr.write(f"bouquet: {ensure(CertificateSettings.read())}\n")


if __name__ == "__main__":
    report_errors(main)
