"""A SuperNode's identity: one private key, `node-<k>.key` in the folder of identities.

On one machine k is a partition. The SuperNode that holds the lease on partition k uses key k, so a replacement
container is the same node to the SuperLink. Every key in the folder is enrolled: `bouquet.oneshot.enrol` writes a key
only after the SuperLink has registered its public key.

In a cluster k is a slot, and the nodes of the cluster share no folder. They and the SuperLink share a secret, the seed.
Each slot derives its key from the seed, so a task or a pod that replaces another is the same node to the SuperLink. The
SuperLink admits the keys of the seed by itself. See docs/decisions/0030-partitions-from-the-superlink.md.
"""

import base64
import hashlib
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
    load_ssh_private_key,
)

from bouquet.contract.tls_files import CA
from bouquet.errors import FleetError, SettingError
from bouquet.files import write_if_changed
from bouquet.polling import poll_until

IDENTITY_POLL_SECONDS = 0.2
SEED_FILE = "BOUQUET_SEED_FILE"
MIN_SEED_BYTES = 32
P384_ORDER = int("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)
"""The number of points of the curve P-384 (SEC 2, section 2.5.1): private keys are 1 to this number - 1."""
DERIVED_BYTES = 64
"""As many bytes as make the remainder of a division by the order uniform (FIPS 186-5, A.4.1: 64 bits more)."""


def key_path(identities: Path, number: int) -> Path:
    """Return the path of the private key of a partition, or in a cluster of a slot."""
    return identities / f"node-{number}.key"


def make_key() -> bytes:
    """Return a new private key that Flower accepts: EC P-384 in OpenSSH's format (Flower rejects Ed25519)."""
    return _openssh(ec.generate_private_key(ec.SECP384R1()))


def derive_key(seed: bytes, slot: int) -> bytes:
    """Return the private key of a slot, in the format of `make_key`: the same for the same seed and slot.

    The key is HKDF-SHA384 (RFC 5869) of the seed, as a number from 1 to the curve's order - 1.
    """
    derived = HKDF(hashes.SHA384(), DERIVED_BYTES, salt=None, info=f"bouquet node key {slot}".encode()).derive(seed)
    number = int.from_bytes(derived) % (P384_ORDER - 1) + 1
    return _openssh(ec.derive_private_key(number, ec.SECP384R1()))


def read_seed(path: Path) -> bytes:
    """Return the seed in a file, without surrounding white space.

    Raises:
        SettingError: The file cannot be read, or is too short to be a secret.
    """
    hint = "give a file with 64 random hex digits, for example from: openssl rand -hex 32"
    try:
        seed = path.read_bytes().strip()
    except OSError as error:
        raise SettingError(SEED_FILE, path, f"it cannot be read ({error.strerror})", hint) from error
    if len(seed) < MIN_SEED_BYTES:
        raise SettingError(SEED_FILE, path, f"it has {len(seed)} bytes, and {MIN_SEED_BYTES} are needed", hint)
    return seed


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


def _openssh(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
