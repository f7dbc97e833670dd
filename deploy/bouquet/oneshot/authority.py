"""Makes the secrets of a cluster: `python -m bouquet.oneshot.authority FOLDER`.

It writes the CA (`ca.key`, `ca.crt`) and the seed of the nodes' keys (`seed`) into the folder, and keeps what is there.
"""

import secrets
import sys
from pathlib import Path

from bouquet.contract.keys import MIN_SEED_BYTES
from bouquet.errors import report_errors
from bouquet.files import write_if_changed
from bouquet.oneshot.certificates import new_authority

SEED = "seed"


def make_secrets(folder: Path) -> None:
    """Write `ca.key`, `ca.crt` and `seed` into a folder, as far as they are missing.

    Raises:
        OSError: The folder cannot be written.
    """
    new_authority(folder)
    if not (folder / SEED).exists():
        write_if_changed(folder / SEED, new_seed() + b"\n", 0o600)


def new_seed() -> bytes:
    """Return a seed: random hex digits."""
    return secrets.token_hex(MIN_SEED_BYTES).encode("ascii")


def main() -> None:
    """Make the secrets in the folder on the command line."""
    make_secrets(Path(sys.argv[1]))


if __name__ == "__main__":
    report_errors(main)
