"""Enrols the SuperNodes and writes the fleet's size: `python -m bouquet.oneshot.enrol`, a one-shot that is idempotent.

It writes a node's private key for its SuperNode (`bouquet.contract.keys`) only after the SuperLink has registered the
public key. So a SuperNode that waits for its key waits for its enrolment. The fleet's size is written last
(`bouquet.contract.fleet_size`).
"""

import sys
from pathlib import Path

from bouquet.contract.fleet_size import write_size
from bouquet.contract.keys import key_path, make_key, public_key, write_identity
from bouquet.contract.tls_files import CA
from bouquet.errors import report_errors
from bouquet.flower.control_client import ControlClient
from bouquet.runtime import grpc_proxy
from bouquet.settings.env import INSECURE_WARNING
from bouquet.settings.oneshot import EnrolSettings


def enrol(api: ControlClient, identities: Path, partition_ids: range) -> int:
    """Enrol the nodes of these partitions; return how many the SuperLink did not know before."""
    enrolled = api.registered()
    new = 0
    for partition_id in partition_ids:
        path = key_path(identities, partition_id)
        private_key = path.read_bytes() if path.exists() else None
        if private_key and public_key(private_key) in enrolled:
            continue
        if private_key is None or not api.register(public_key(private_key)):
            # There is no key yet, or its node was removed: Flower never registers such a key again.
            private_key = make_key()
            api.register(public_key(private_key))
            write_identity(identities, partition_id, private_key)
        new += 1
    return new


def main() -> None:
    """Enrol the SuperNodes, log how many, and write the fleet's size."""
    settings = EnrolSettings.read()
    grpc_proxy.only_on_request()
    if settings.insecure:
        sys.stderr.write(f"bouquet: warning: {INSECURE_WARNING}\n")
    else:
        identities = settings.directories.identities
        with ControlClient(settings.control, (identities / CA).read_bytes()) as api:
            new = enrol(api, identities, range(settings.supernodes))
        sys.stderr.write(f"bouquet: {settings.supernodes} SuperNodes are enrolled, {new} of them new\n")
    write_size(settings.size_file, settings.supernodes)


if __name__ == "__main__":
    report_errors(main)
