"""The SuperLink's Control API, as `flwr supernode register` and `flwr supernode list` use it."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
from flwr.common.constant import HEARTBEAT_PATIENCE
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest
from flwr.proto.control_pb2_grpc import ControlStub
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.constant import NodeStatus
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor

from bouquet.errors import FleetError
from bouquet.flower.channels import open_channel
from bouquet.runtime.grpc_proxy import through

SETUP_SECONDS = 60.0
"""Time for one call while the fleet is set up, including the wait for a SuperLink that is starting."""


class ControlApiError(FleetError):
    """A call to the Control API failed.

    Attributes:
        code: The name of the gRPC status, such as `UNAVAILABLE`.
        details: What the SuperLink or gRPC says about it.
    """

    def __init__(self, address: str, code: str, details: str) -> None:
        super().__init__(
            f"{address}{through(address)}: {code}: {details}", "check that the SuperLink is up: make status, make logs"
        )
        self.code = code
        self.details = details


@dataclass(frozen=True)
class KnownNode:
    """A node as the SuperLink knows it.

    Attributes:
        node_id: Its id.
        status: `online`, `offline`, `registered` or `unregistered`.
        heartbeat: When it last sent a heartbeat, in seconds since the epoch. None: never.
        public_key: Its public key, in PEM.
    """

    node_id: int
    status: str
    heartbeat: float | None
    public_key: bytes = b""


class ControlClient:
    """A connection to a SuperLink's Control API; leaving the `with` block closes it."""

    def __init__(self, address: str, root_certificates: bytes | None) -> None:
        """Prepare a connection; the first call opens it.

        Args:
            address: `host:port` of the Control API.
            root_certificates: The CA certificates by which to verify the SuperLink, in PEM. None: no TLS.
        """
        self._address = address
        version = RuntimeVersionClientInterceptor(component_name="flwr CLI")
        self._channel = open_channel(address, root_certificates, [version])
        self._stub = ControlStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._channel.close()

    def list_nodes(self, seconds: float) -> list[KnownNode]:
        """Return all nodes that the SuperLink knows.

        Args:
            seconds: How long to wait for the answer.

        Raises:
            ControlApiError: The SuperLink cannot be reached, or did not answer in time.
        """
        return self._list_nodes(timeout=seconds)

    def registered(self) -> dict[bytes, int]:
        """Return the node id by public key of every node that may take part; wait for a SuperLink that is starting.

        Raises:
            ControlApiError: The SuperLink did not answer within 60 s.
        """
        nodes = self._list_nodes(timeout=SETUP_SECONDS, wait_for_ready=True)
        return {node.public_key: node.node_id for node in nodes if node.status != NodeStatus.UNREGISTERED}

    def register(self, public_key: bytes) -> bool:
        """Allow a node to take part; wait for a SuperLink that is starting.

        Args:
            public_key: The node's public key, in PEM.

        Returns:
            False if the SuperLink has the key already. It never accepts the key of a node that was removed.

        Raises:
            ControlApiError: The SuperLink refused the key for another reason, or did not answer within 60 s.
        """
        request = RegisterNodeRequest(public_key=public_key)
        try:
            response = self._call(self._stub.RegisterNode, request, timeout=SETUP_SECONDS, wait_for_ready=True)
        except ControlApiError as error:
            if "in use" in error.details.lower():
                return False
            raise
        return bool(response.node_id)

    def _list_nodes(self, **options: Any) -> list[KnownNode]:
        nodes = self._call(self._stub.ListNodes, ListNodesRequest(), **options).nodes_info
        return [KnownNode(node.node_id, node.status, _last_heartbeat(node), bytes(node.public_key)) for node in nodes]

    def _call(self, method: Callable[..., Any], request: Any, **options: Any) -> Any:
        try:
            return method(request, **options)
        except grpc.RpcError as error:
            raise ControlApiError(self._address, error.code().name, str(error.details())) from error


def _last_heartbeat(node: NodeInfo) -> float | None:
    """Return when a node last sent a heartbeat: two heartbeat intervals before it counts as offline."""
    return node.online_until - HEARTBEAT_PATIENCE * node.heartbeat_interval if node.online_until else None
