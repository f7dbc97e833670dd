"""A SuperNode's identity: one private key per partition, `node-<k>.key` in the folder of identities.

The SuperNode that holds the lease on partition k uses key k, so a replacement container is the same node to the
SuperLink. Every key in the folder is enrolled: `bouquet.oneshot.enrol` writes a key only after the SuperLink has
registered its public key.
"""

import base64
import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
    load_ssh_private_key,
)

from bouquet.contract.tls_files import CA
from bouquet.errors import FleetError
from bouquet.files import write_if_changed
from bouquet.polling import poll_until

IDENTITY_POLL_SECONDS = 0.2


def key_path(identities: Path, partition_id: int) -> Path:
    """Return the path of a partition's private key."""
    return identities / f"node-{partition_id}.key"


def make_key() -> bytes:
    """Return a new private key that Flower accepts: EC P-384 in OpenSSH's format (Flower rejects Ed25519)."""
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def public_key(private_key: bytes) -> bytes:
    """Return the public key of a private key, in PEM format as Flower sends it."""
    key = load_ssh_private_key(private_key, password=None)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(public_key_pem: bytes) -> str:
    """Return a public key's fingerprint, as `ssh-keygen -lf` shows it."""
    line = load_pem_public_key(public_key_pem).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def write_identity(identities: Path, partition_id: int, private_key: bytes) -> None:
    """Write a partition's private key where its SuperNode reads it."""
    write_if_changed(key_path(identities, partition_id), private_key, 0o600)


def wait_for_identity(identities: Path, partition_id: int, timeout_seconds: float) -> Path:
    """Return the path of a partition's private key, once the key and the CA's certificate exist.

    Raises:
        FleetError: They did not appear in time.
    """
    key = key_path(identities, partition_id)
    if not poll_until(lambda: key.exists() and (identities / CA).exists(), timeout_seconds, IDENTITY_POLL_SECONDS):
        raise FleetError(
            f"SUPERLINK_MAX_WAIT={timeout_seconds:g}: no key for partition-id {partition_id} in {identities} after "
            f"{timeout_seconds:g} s",
            "enrol this SuperNode: docker compose up does so with its service `setup`; for a SuperNode on another "
            "machine: make join-command",
        )
    return key
