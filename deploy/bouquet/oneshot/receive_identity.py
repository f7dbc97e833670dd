"""Stores the CA's certificate and a node's private key from stdin, on the machine of a new node.

`python -m bouquet.oneshot.receive_identity`, in the command that `bouquet join-command` prints.
"""

import re
import sys
from pathlib import Path

from bouquet.contract.keys import JOINED_NUMBER, write_identity
from bouquet.contract.tls_files import CA
from bouquet.errors import report_errors
from bouquet.files import write_if_changed
from bouquet.settings.env import Directories

PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----\n?", re.DOTALL)


def receive(identities: Path, identity: bytes) -> None:
    """Write the CA's certificate and the node's private key to the folder of identities.

    Args:
        identities: The folder of identities.
        identity: The certificate and the key, in PEM format.
    """
    found = {match[1]: match[0] for match in PEM.finditer(identity)}
    write_if_changed(identities / CA, found[b"CERTIFICATE"])
    write_identity(identities, JOINED_NUMBER, found[b"OPENSSH PRIVATE KEY"])


def main() -> None:
    """Store the identity on stdin."""
    receive(Directories.read().identities, sys.stdin.buffer.read())


if __name__ == "__main__":
    report_errors(main)
