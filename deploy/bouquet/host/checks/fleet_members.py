"""Whether the running fleet is healthy."""

from bouquet.errors import FleetError
from bouquet.host.fleet.base import Fleet


def nodes(fleet: Fleet, supernodes: int) -> str:
    """Check that the running fleet is healthy."""
    bad = [f"{member.name} ({member.state})" for member in fleet.members() if not member.healthy]
    if bad:
        raise FleetError(f"not healthy: {', '.join(bad)}", "full logs: make logs")
    return f"all {supernodes} SuperNodes and the SuperLink are healthy"
