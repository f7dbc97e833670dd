"""What every fleet can do: the protocol `Fleet`, with one implementation in `compose` and one in `processes`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bouquet.contract.node_status import NodeStatus
from bouquet.host.packages.package_list import PackageList

LOG_TAIL_LINES = 20
"""Lines of its log shown for a member that did not start."""
UNHEALTHY_HINT = "fix the error in the logs, or allow more time: UP_TIMEOUT=600 make up"


@dataclass(frozen=True)
class Member:
    """One SuperLink or SuperNode of a fleet.

    Attributes:
        name: The container's or the process's name.
        role: `superlink` or `supernode`.
        state: `healthy`, or another state such as `starting`, `unhealthy`, `restarting` or `exited`.
        partition_id: The partition that a SuperNode holds; None where it holds none or that is unknown.
        host: The host name that the member itself sees.
    """

    name: str
    role: str
    state: str
    partition_id: int | None = None
    host: str = ""

    @property
    def healthy(self) -> bool:
        """Whether the member is ready to serve."""
        return self.state == "healthy"


class Fleet(Protocol):
    """One SuperLink and N SuperNodes, as containers or as local processes."""

    def uses_gpus(self) -> bool:
        """Whether the nodes compute on GPUs."""

    def python(self) -> str | None:
        """Return the version of the members' Python, such as `3.11`; None if it is unknown."""

    def packages(self) -> str | None:
        """Return the digest of the package list that the running fleet has; None where the fleet is down.

        It is `package_list.UNKNOWN` for a fleet that an earlier version started.
        """

    def prepare(self, packages: PackageList) -> Iterator[str]:
        """Build or find what the fleet starts from; yield one line for each thing found or done.

        Args:
            packages: What the fleet's Python must have.
        """

    def up(self) -> None:
        """Start what is not running yet and wait until all members are healthy.

        Raises:
            FleetError: The fleet is not healthy in time.
        """

    def down(self, *, volumes: bool = False) -> None:
        """Stop the fleet. Results, state and caches stay; with `volumes`, state and caches are removed."""

    def members(self) -> list[Member]:
        """Return the fleet's members and their states; empty where the fleet is down."""

    def node_statuses(self) -> list[NodeStatus]:
        """Return the status files of this machine's SuperNodes; some may belong to nodes that have ended."""

    def memory(self) -> dict[str, int]:
        """Return the bytes of memory that each running member uses, by name."""

    def root_certificate(self) -> bytes | None:
        """Return the CA's certificate, with which `flwr` verifies the SuperLink; None for a fleet without TLS."""

    def logs(self, *, follow: bool) -> None:
        """Print the members' logs to stdout; with `follow`, until interrupted."""

    def collect_results(self, destination: Path, run_id: str | None = None) -> None:
        """Copy the results of one run, or of all runs, to `destination`, owned by the current user."""


def is_complete(members: list[Member], supernodes: int) -> bool:
    """Whether `members` are one SuperLink and `supernodes` SuperNodes, all healthy, each on a partition of its own."""
    healthy = [member for member in members if member.healthy]
    superlinks = [member for member in healthy if member.role == "superlink"]
    partition_ids = [member.partition_id for member in healthy if member.role == "supernode"]
    return len(superlinks) == 1 and len(members) == supernodes + 1 and len(set(partition_ids) - {None}) == supernodes
