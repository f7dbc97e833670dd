"""Who a SuperNode is to the SuperLink: a key for each partition, `node-<k>.key` in the folder of identities.

Whoever holds the lease on partition k uses key k, so that a replaced container is the same node. A key that lies
there is enrolled: `bouquet.oneshot.enrol` puts it there only after the SuperLink has taken its public half.
"""

import base64
import hashlib
import time
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

LOOK_SECONDS = 0.2


def key_path(identities: Path, partition_id: int) -> Path:
    """Return where the key of a partition's node lies."""
    return identities / f"node-{partition_id}.key"


def make_key() -> bytes:
    """Return a new private key as Flower reads it: EC P-384 in OpenSSH's format (Ed25519 is refused)."""
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def public_key(private_key: bytes) -> bytes:
    """Return the public half as Flower sends it: PEM."""
    key = load_ssh_private_key(private_key, password=None)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(public_key_pem: bytes) -> str:
    """Return a public key's fingerprint, the one that `ssh-keygen -lf` shows for its key file."""
    line = load_pem_public_key(public_key_pem).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def write_identity(identities: Path, partition_id: int, private_key: bytes) -> None:
    """Put a node's key where its SuperNode looks for it."""
    write_if_changed(key_path(identities, partition_id), private_key, 0o600)


def wait_for_identity(identities: Path, partition_id: int, seconds: float) -> Path:
    """Return the key of a partition's node once it, and the CA's certificate, are there.

    Raises
    ------
    FleetError
        They did not come in time.
    """
    key = key_path(identities, partition_id)
    deadline = time.monotonic() + seconds
    while not (key.exists() and (identities / CA).exists()):
        if time.monotonic() > deadline:
            raise FleetError(
                f"SUPERLINK_MAX_WAIT={seconds:g}: no key for partition-id {partition_id} came in {identities}",
                "enrol this SuperNode, as docker compose up does by its service `setup`; from another machine: "
                "make join-command",
            )
        time.sleep(LOOK_SECONDS)
    return key
