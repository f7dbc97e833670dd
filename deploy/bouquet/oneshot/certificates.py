"""Provides the fleet's TLS files: its CA and the SuperLink's certificate, or the user's own certificates.

`python -m bouquet.oneshot.certificates` fills three folders, each with its own readers
(docs/decisions/0011-secure-by-default.md):

    authority    ca.key, ca.crt                       this module only
    server       server.key, server.pem, ca.crt       the SuperLink
    identities   ca.crt, later a key for each node    the SuperNodes

A valid certificate is kept. One that expires soon, is damaged or lacks a name is replaced. Every file is written
atomically, and only its owner can read a private key.
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

USER_HINT = f"give a folder with {CA}, {SERVER} and {SERVER_KEY}, or leave CERTIFICATES out"

NAMES = ("superlink", "control", "localhost", "127.0.0.1")
"""Names under which the fleet itself, and `flwr` on this machine, reach the SuperLink."""

CA_LIFETIME = datetime.timedelta(days=3650)
SERVER_LIFETIME = datetime.timedelta(days=397)  # browsers accept no longer lifetime
RENEWAL = datetime.timedelta(days=30)  # before the expiry
SKEW = datetime.timedelta(days=1)  # a machine whose clock is slow accepts a new certificate, too

Key = ec.EllipticCurvePrivateKey


class UnusableError(Exception):
    """A certificate cannot be used; the message is the reason."""


def ensure(settings: CertificateSettings, now: datetime.datetime | None = None) -> str:
    """Ensure that the SuperLink has a valid certificate; return what was found or done, in one line.

    Raises:
        SettingError: The user's own certificates cannot be used, or a name is invalid.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    if settings.user_dir is not None:
        return _install_user_certificates(settings, now)
    names = [*NAMES, *settings.names]
    server = settings.directories.server
    try:
        expiry = _check(server, names, now, RENEWAL)
        if (server / CA).read_bytes() != (settings.directories.authority / CA).read_bytes():
            raise UnusableError(f"{SERVER} is not signed by this fleet's CA")
        write_if_changed(settings.directories.identities / CA, (server / CA).read_bytes())
        return f"certificates: valid until {expiry:%Y-%m-%d}"
    except (UnusableError, FileNotFoundError) as error:
        why = str(error) if isinstance(error, UnusableError) else "there was none"
    ca, ca_key = _authority(settings.directories.authority, now)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _issue_server(names, key, ca, ca_key, now)
    _install(settings, _pem(ca), _pem(certificate), _key_pem(key))
    return (
        f"certificates: issued one for {', '.join(names)}, valid until "
        f"{certificate.not_valid_after_utc:%Y-%m-%d} ({why})"
    )


def new_authority(folder: Path, now: datetime.datetime | None = None) -> None:
    """Write a CA, `ca.crt` and `ca.key`, into a folder; keep a CA that is there and valid for long enough."""
    _authority(folder, now or datetime.datetime.now(datetime.UTC))


def check_user_certificates(folder: Path, label: str, now: datetime.datetime | None = None) -> datetime.datetime:
    """Return when the user's own certificate expires.

    Args:
        folder: The folder with the user's certificates, as this process sees it.
        label: The same folder as the user wrote it, for messages.
        now: The current time.

    Raises:
        SettingError: The certificate cannot be used: a file is missing or unreadable, the certificate has expired,
            lacks a name or does not match its key.
    """
    try:
        return _check(folder, NAMES, now or datetime.datetime.now(datetime.UTC), datetime.timedelta())
    except FileNotFoundError as error:
        raise SettingError("CERTIFICATES", label, f"{Path(error.filename).name} is missing", USER_HINT) from None
    except PermissionError as error:
        raise SettingError(
            "CERTIFICATES",
            label,
            f"{Path(error.filename).name} is not readable for uid {os.getuid()}",
            f"make it readable: setfacl -m u:{os.getuid()}:r {label}/{Path(error.filename).name}",
        ) from None
    except UnusableError as error:
        raise SettingError("CERTIFICATES", label, str(error), USER_HINT) from None


def _install_user_certificates(settings: CertificateSettings, now: datetime.datetime) -> str:
    assert settings.user_dir is not None  # noqa: S101  for mypy
    expiry = check_user_certificates(settings.user_dir, settings.user_dir_label, now)
    _install(settings, *((settings.user_dir / name).read_bytes() for name in (CA, SERVER, SERVER_KEY)))
    return f"certificates: your own, valid until {expiry:%Y-%m-%d} (CERTIFICATES={settings.user_dir_label})"


def _install(settings: CertificateSettings, ca: bytes, certificate: bytes, key: bytes) -> None:
    # The key comes first. After a crash in between, the files do not match, and `_check` rejects them.
    server = settings.directories.server
    write_if_changed(server / SERVER_KEY, key, 0o600)
    write_if_changed(server / SERVER, certificate)
    write_if_changed(server / CA, ca)
    write_if_changed(settings.directories.identities / CA, ca)


def _check(folder: Path, names: Iterable[str], now: datetime.datetime, margin: datetime.timedelta) -> datetime.datetime:
    """Return when the server's certificate in a folder expires; raise `UnusableError` if it cannot be used."""
    ca, certificate = _read_certificate(folder / CA), _read_certificate(folder / SERVER)
    key = _read_key(folder / SERVER_KEY)
    if key.public_key() != certificate.public_key():
        raise UnusableError(f"{SERVER_KEY} does not match {SERVER}")
    _check_signed_by(certificate, folder / SERVER, _pem(ca))
    for name, found in ((CA, ca), (SERVER, certificate)):
        if found.not_valid_after_utc <= now + margin:
            verb = "expired" if found.not_valid_after_utc <= now else "expires"
            raise UnusableError(f"{name} {verb} on {found.not_valid_after_utc:%Y-%m-%d}")
        if found.not_valid_before_utc > now:
            raise UnusableError(f"{name} is not valid before {found.not_valid_before_utc:%Y-%m-%d}")
    if missing := sorted(set(map(str, names)) - _names(certificate)):
        raise UnusableError(f"{SERVER} is not valid for {', '.join(missing)}")
    return certificate.not_valid_after_utc


def _check_signed_by(certificate: x509.Certificate, path: Path, ca: bytes) -> None:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
    except (ValueError, TypeError, InvalidSignature):
        raise UnusableError(f"{path.name} is not signed by {CA}") from None


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
        raise UnusableError(f"{path.name} is not a certificate in PEM format") from None


def _read_key(path: Path) -> Key:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise UnusableError(f"{path.name} is not a private key in PEM format without a password") from None
    return key  # type: ignore[return-value]  # of any type: only its public key is compared


def _authority(folder: Path, now: datetime.datetime) -> tuple[x509.Certificate, Key]:
    """Return the fleet's CA; create it if it is missing, or expires before a certificate that it would sign now."""
    try:
        ca, key = _read_certificate(folder / CA), _read_key(folder / CA_KEY)
        if key.public_key() == ca.public_key() and ca.not_valid_after_utc > now + SERVER_LIFETIME:
            return ca, key
    except (UnusableError, FileNotFoundError):
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Bouquet CA")])
    ca = (
        _builder(name, name, key.public_key(), key.public_key(), now, CA_LIFETIME)
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
        _builder(subject, ca.subject, key.public_key(), ca_key.public_key(), now, SERVER_LIFETIME)
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
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + lifetime)
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
            "give names under which other machines reach this one, for example SUPERLINK_NAMES=fleet.example.org",
        )
    return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def main() -> None:
    """Ensure that the certificates are valid, and log what was found or done."""
    sys.stderr.write(f"bouquet: {ensure(CertificateSettings.read())}\n")


if __name__ == "__main__":
    report_errors(main)
