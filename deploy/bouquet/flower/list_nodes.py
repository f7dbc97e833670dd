"""Names that `bouquet.host.status` still imports; they go when it uses `bouquet.flower.control_client`."""

from bouquet.flower.control_client import ControlClient, KnownNode

__all__ = ["KnownNode", "list_nodes"]


def list_nodes(address: str, root_certificates: bytes | None, seconds: float) -> list[KnownNode]:
    """Return all nodes that the SuperLink knows."""
    with ControlClient(address, root_certificates) as client:
        return client.list_nodes(seconds)
