"""`flower-supernode`, which declares its container ready once the SuperLink has registered it."""

import sys

import grpc
from flwr.supernode.cli import flower_supernode

from deploy.entry import report
from deploy.errors import FleetError
from deploy.flower.readiness import SUPERNODE_READY, when_logged
from deploy.probe import Readiness
from deploy.settings import Directories


def main() -> None:
    """Run the SuperNode; raise `FleetError` once it has given up on the SuperLink."""
    when_logged(SUPERNODE_READY, Readiness(Directories.read().run).declare)
    try:
        flower_supernode()
    except (grpc.RpcError, RuntimeError) as error:
        # Flower logs the RpcError and lets its generator end: what comes out is "generator didn't yield".
        if isinstance(error, RuntimeError) and "generator didn't yield" not in str(error):
            raise
        address = sys.argv[sys.argv.index("--superlink") + 1]
        raise FleetError(
            f"SUPERLINK={address}: gave up reaching the SuperLink",
            "start it, or correct SUPERLINK; SUPERLINK_MAX_WAIT sets for how many seconds a SuperNode tries",
        ) from error


if __name__ == "__main__":
    report(main)
