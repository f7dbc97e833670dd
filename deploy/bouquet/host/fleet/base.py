"""What every fleet can do, whatever it is made of: one launcher a file (`compose_fleet`, `process_fleet`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bouquet.contract.node_status import NodeStatus

TAIL = 20
"""Lines of a log shown for a member that did not start."""
UNHEALTHY_HINT = "mend what the logs say, or give the fleet longer: UP_TIMEOUT=600 make up"


@dataclass(frozen=True)
class Member:
    """One SuperLink or SuperNode of a fleet."""

    name: str
    role: str
    """`superlink` or `supernode`."""
    state: str
    """`healthy`, or what it is instead: `starting`, `unhealthy`, `restarting`, `exited`."""
    partition_id: int | None = None
    host: str = ""
    """The host name that it sees itself under."""

    @property
    def healthy(self) -> bool:
        """Whether it is ready to serve."""
        return self.state == "healthy"


class Fleet(Protocol):
    """One SuperLink and N SuperNodes, as containers or as local processes."""

    def prepare(self) -> Iterator[str]:
        """Make what the fleet is started from; yield a line for each thing found or done."""

    def up(self) -> None:
        """Start what is not running yet and wait until all are healthy; raise `FleetError` where they are not."""

    def down(self, *, volumes: bool = False) -> None:
        """Stop the fleet; results, state and caches stay, unless `volumes` are to go too."""

    def members(self) -> list[Member]:
        """Return the fleet's members as they are now; empty where it is down."""

    def reports(self) -> list[NodeStatus]:
        """Return what the SuperNodes of this machine say of themselves; some may be gone."""

    def memory(self) -> dict[str, int]:
        """Return the bytes of memory that each running member takes, by name."""

    def root_certificate(self) -> bytes | None:
        """Return the CA's certificate, by which `flwr` knows the SuperLink; None for a fleet without TLS."""

    def logs(self, *, follow: bool) -> None:
        """Print the members' logs to stdout; with `follow`, until interrupted."""

    def collect_results(self, destination: Path, run_id: str | None = None) -> None:
        """Bring the results of one run, or of all, to `destination`, owned by the user who asks."""


def is_complete(members: list[Member], supernodes: int) -> bool:
    """Whether `members` are one SuperLink and `supernodes` SuperNodes, all healthy, with a partition each."""
    healthy = [member for member in members if member.healthy]
    superlinks = [member for member in healthy if member.role == "superlink"]
    partition_ids = [member.partition_id for member in healthy if member.role == "supernode"]
    return len(superlinks) == 1 and len(members) == supernodes + 1 and set(partition_ids) == set(range(supernodes))
