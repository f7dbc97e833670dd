"""Stores the CA's certificate and a node's private key from stdin, on the machine of a new node.

`python -m bouquet.oneshot.receive_identity <partition-id>`, in the command that `bouquet join-command` prints.
"""

import re
import sys
from pathlib import Path

from bouquet.contract.keys import write_identity
from bouquet.contract.tls_files import CA
from bouquet.errors import report_errors
from bouquet.files import write_if_changed
from bouquet.settings.env import Directories

PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----\n?", re.DOTALL)


def receive(identities: Path, partition_id: int, identity: bytes) -> None:
    """Write the CA's certificate and the node's private key to the folder of identities.

    Args:
        identities: The folder of identities.
        partition_id: The partition of the new node.
        identity: The certificate and the key, in PEM format.
    """
    found = {match[1]: match[0] for match in PEM.finditer(identity)}
    write_if_changed(identities / CA, found[b"CERTIFICATE"])
    write_identity(identities, partition_id, found[b"OPENSSH PRIVATE KEY"])


def main() -> None:
    """Store the identity on stdin for the partition on the command line."""
    receive(Directories.read().identities, int(sys.argv[1]), sys.stdin.buffer.read())


if __name__ == "__main__":
    report_errors(main)
