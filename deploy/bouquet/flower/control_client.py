"""The Control API as `flwr supernode register` and `flwr supernode list` use it, without their terminal output."""

from types import TracebackType
from typing import Self

import grpc
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest
from flwr.proto.control_pb2_grpc import ControlStub
from flwr.supercore.constant import NodeStatus
from flwr.supercore.grpc import create_channel
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor

PATIENCE = 60.0  # seconds for one call


class ControlApi:
    """A connection to a SuperLink's Control API."""

    def __init__(self, address: str, root_certificates: bytes | None) -> None:
        self._channel = create_channel(
            server_address=address,
            insecure=root_certificates is None,
            root_certificates=root_certificates,
            interceptors=[RuntimeVersionClientInterceptor(component_name="flwr CLI")],
        )
        self._stub = ControlStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._channel.close()

    def enrolled(self) -> dict[bytes, int]:
        """Return the node id by public key of every node that may take part."""
        answer = self._stub.ListNodes(ListNodesRequest(), timeout=PATIENCE, wait_for_ready=True)
        return {
            bytes(node.public_key): node.node_id for node in answer.nodes_info if node.status != NodeStatus.UNREGISTERED
        }

    def enrol(self, public_key: bytes) -> bool:
        """Let a node take part; False where the SuperLink has the key already, be it of a node removed since."""
        try:
            answer = self._stub.RegisterNode(
                RegisterNodeRequest(public_key=public_key), timeout=PATIENCE, wait_for_ready=True
            )
        except grpc.RpcError as error:
            if "in use" in str(error.details()).lower():
                return False
            raise
        return bool(answer.node_id)
