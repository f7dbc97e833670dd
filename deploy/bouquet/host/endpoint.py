"""Where a fleet's SuperLink is, as the fleet itself knows it: the file of connections may name another by now."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from bouquet.flower.control_client import ControlClient


class HasCertificate(Protocol):
    """A fleet, wherever it runs."""

    def root_certificate(self) -> bytes | None:
        """Return the CA's certificate, with which `flwr` verifies the SuperLink; None for a fleet without TLS."""


@dataclass(frozen=True)
class Endpoint:
    """The Control API of one fleet.

    Attributes:
        address: `host:port`.
        root_certificate: The CA certificate of the fleet, in PEM; None for a fleet without TLS.
    """

    address: str
    root_certificate: bytes | None

    @classmethod
    def of(cls, fleet: HasCertificate, control_port: int) -> Self:
        """Return the endpoint of a running fleet.

        Raises:
            FleetError: The fleet has no certificates yet, or its SuperLink is not running.
        """
        return cls(f"127.0.0.1:{control_port}", fleet.root_certificate())

    def client(self) -> "ControlClient":
        """Return a connection to the Control API; leaving its `with` block closes it."""
        from bouquet.flower.control_client import ControlClient  # noqa: PLC0415  importing Flower takes a second

        return ControlClient(self.address, self.root_certificate)
