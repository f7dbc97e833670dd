"""The SuperLink's list of nodes: what `flwr supernode list` shows, for less than half of its CPU time."""

from dataclasses import dataclass

from flwr.common.constant import HEARTBEAT_PATIENCE
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.proto.control_pb2_grpc import ControlStub
from flwr.supercore.grpc import create_channel
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor


@dataclass(frozen=True)
class KnownNode:
    """A node as the SuperLink knows it."""

    node_id: int
    status: str
    """`online`, `offline`, `registered` or `unregistered`."""
    heartbeat: float | None
    """Seconds since the epoch; None: never."""


def list_nodes(address: str, root_certificates: bytes | None, seconds: float) -> list[KnownNode]:
    """Ask the Control API at `address`, which has `seconds` to answer; raise `grpc.RpcError` if it does not."""
    channel = create_channel(
        server_address=address,
        insecure=root_certificates is None,
        root_certificates=root_certificates,
        interceptors=[RuntimeVersionClientInterceptor(component_name="flwr CLI")],
    )
    try:
        found = ControlStub(channel).ListNodes(ListNodesRequest(), timeout=seconds).nodes_info
    finally:
        channel.close()
    return [
        KnownNode(node.node_id, node.status, _last_heartbeat(node.online_until, node.heartbeat_interval))
        for node in found
    ]


def _last_heartbeat(online_until: float, interval: float) -> float | None:
    return online_until - HEARTBEAT_PATIENCE * interval if online_until else None
