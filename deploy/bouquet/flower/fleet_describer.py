"""The service `bouquet.Fleet` in the SuperLink: the names, partitions and kinds of its nodes."""

from typing import Any

import grpc
from flwr.supercore.constant import NodeStatus

from bouquet.contract.fleet_service import DESCRIBE, NAME, NAME_NODE, SERVICE, decode, encode
from bouquet.flower.link_state import StateFactory
from bouquet.superlink.node_records import NameTakenError, NodeRecords
from bouquet.superlink.partition_map import PartitionMap


class FleetDescriber:
    """Answers the calls of the service."""

    def __init__(self, states: StateFactory, partitions: PartitionMap, records: NodeRecords) -> None:
        self._states = states
        self._partitions = partitions
        self._records = records

    def describe(self, request: dict[str, Any], context: grpc.ServicerContext) -> dict[str, Any]:
        """Return the fleet's size and its nodes."""
        nodes = self._states.state().nodes_by_id()
        return {
            "num-partitions": self._partitions.num_partitions,
            "nodes": [
                {
                    "node-id": str(node_id),
                    "name": self._records.of(node_id).name,
                    "partition-id": self._partitions.held_by(node_id, online=node.status == NodeStatus.ONLINE),
                    "kind": self._records.of(node_id).kind,
                    "online": node.status == NodeStatus.ONLINE,
                }
                for node_id, node in nodes.items()
                if node.status != NodeStatus.UNREGISTERED
            ],
        }

    def name_node(self, request: dict[str, Any], context: grpc.ServicerContext) -> dict[str, Any]:
        """Name a node: `node-id` and `name` of the request."""
        node_id, name = int(request["node-id"]), str(request["name"])
        node = self._states.state().nodes_by_id().get(node_id)
        if node is None or node.status == NodeStatus.UNREGISTERED:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no node {node_id}")
        if not NAME.fullmatch(name):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{name!r} is not a name")
        try:
            self._records.give_name(node_id, name)
        except NameTakenError as error:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, str(error))
        return {}

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service, for a gRPC server."""
        methods = {DESCRIBE: self.describe, NAME_NODE: self.name_node}
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(method, request_deserializer=decode, response_serializer=encode)
            for name, method in methods.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)
