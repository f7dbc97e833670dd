"""Whether the nodes fit in the memory."""

import psutil

from bouquet.errors import HostError

MIB = 1024**2
SUPERLINK_MIB, SUPERNODE_MIB = 800, 700
"""MiB of memory that each uses during a run of the app: slightly more than measured."""


def memory(supernodes: int, up: bool) -> str:
    """Check that so many nodes can train in the available memory; a fleet that is up already uses its part."""
    needed = SUPERLINK_MIB + supernodes * SUPERNODE_MIB
    available = psutil.virtual_memory().available // MIB
    message = f"{available} MiB available, {supernodes} SuperNodes use about {needed} MiB"
    if up:
        return f"{message}; the running fleet has its memory already"
    if available < needed:
        fit = (available - SUPERLINK_MIB) // SUPERNODE_MIB
        raise HostError(f"memory: {message}", f"{fit} fit: SUPERNODES={fit}" if fit > 0 else "free some memory")
    return message
