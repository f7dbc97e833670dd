"""The SuperLink's Control API, as the commands `flwr supernode`, `run`, `list`, `log` and `stop` of Flower use it."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import grpc
from flwr.common.config import parse_config_args
from flwr.common.constant import HEARTBEAT_PATIENCE
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
)
from flwr.proto.control_pb2_grpc import ControlStub
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run
from flwr.supercore.constant import NodeStatus
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor

from bouquet.contract.fleet_service import DESCRIBE, NAME_NODE, SERVICE, decode, encode
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


@dataclass(frozen=True)
class KnownRun:
    """A run as the SuperLink knows it.

    Attributes:
        run_id: Its id.
        status: Flower's status, such as `running` or `finished:completed`.
        details: Flower's details on a failure; empty for none.
        submitted: When it was submitted, in seconds since the epoch.
    """

    run_id: int
    status: str
    details: str
    submitted: float


@dataclass(frozen=True)
class NodeDescription:
    """What the SuperLink knows of a node beyond Flower's API.

    Attributes:
        name: Its name; empty if it was given none.
        partition_id: The partition that it holds; None if it holds none.
        kind: `local`, `slot` (of a cluster) or `joined` (from another machine); empty before its first call.
        online: Whether it is online.
    """

    name: str
    partition_id: int | None
    kind: str
    online: bool


@dataclass(frozen=True)
class FleetDescription:
    """What the SuperLink knows of its fleet beyond Flower's API.

    Attributes:
        num_partitions: The number of partitions; None if it is unknown.
        nodes: The nodes by id, without those that were removed.
    """

    num_partitions: int | None
    nodes: dict[int, NodeDescription]


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

    def register(self, public_key: bytes) -> int | None:
        """Allow a node to take part, and return its id; wait for a SuperLink that is starting.

        Args:
            public_key: The node's public key, in PEM.

        Returns:
            None if the SuperLink has the key already. It never accepts the key of a node that was removed.

        Raises:
            ControlApiError: The SuperLink refused the key for another reason, or did not answer within 60 s.
        """
        request = RegisterNodeRequest(public_key=public_key)
        try:
            response = self._call(self._stub.RegisterNode, request, timeout=SETUP_SECONDS, wait_for_ready=True)
        except ControlApiError as error:
            if "in use" in error.details.lower():
                return None
            raise
        return int(response.node_id) or None

    def unregister(self, node_id: int, seconds: float) -> None:
        """Remove a node, whose key is never accepted again.

        Args:
            node_id: The node.
            seconds: How long to wait for the answer.

        Raises:
            ControlApiError: The SuperLink does not know the node, or did not answer in time.
        """
        self._call(self._stub.UnregisterNode, UnregisterNodeRequest(node_id=node_id), timeout=seconds)

    def describe(self, seconds: float) -> FleetDescription:
        """Return what the SuperLink knows of its fleet beyond Flower's API; a stock SuperLink knows nothing more.

        Args:
            seconds: How long to wait for the answer.

        Raises:
            ControlApiError: The SuperLink cannot be reached, or did not answer in time.
        """
        try:
            answer = self._call(self._method(DESCRIBE), {}, timeout=seconds)
        except ControlApiError as error:
            if error.code != "UNIMPLEMENTED":
                raise
            return FleetDescription(None, {})
        nodes = {
            int(node["node-id"]): NodeDescription(node["name"], node["partition-id"], node["kind"], node["online"])
            for node in answer["nodes"]
        }
        return FleetDescription(answer["num-partitions"], nodes)

    def name_node(self, node_id: int, name: str, seconds: float) -> None:
        """Name a node.

        Args:
            node_id: The node.
            name: Its name, which must fit `bouquet.contract.fleet_service.NAME`.
            seconds: How long to wait for the answer.

        Raises:
            ControlApiError: The name is taken (`ALREADY_EXISTS`), there is no such node (`NOT_FOUND`), or the
                SuperLink did not answer in time.
        """
        self._call(self._method(NAME_NODE), {"node-id": str(node_id), "name": name}, timeout=seconds)

    def start_run(self, fab: bytes, run_config: str, seconds: float) -> int:
        """Submit a run of an app, as `flwr run` does, and return the run's id.

        Args:
            fab: The app, as `flwr build` packs it.
            run_config: `key=value` pairs as `flwr run --run-config` takes them; empty for none.
            seconds: How long to wait for the answer.

        Raises:
            ControlApiError: The SuperLink rejected the run, or did not answer in time.
        """
        overrides = user_config_to_proto(parse_config_args([run_config] if run_config else None))
        app = fab_to_proto(Fab(hashlib.sha256(fab).hexdigest(), fab, {}))
        response = self._call(self._stub.StartRun, StartRunRequest(fab=app, override_config=overrides), timeout=seconds)
        if not response.HasField("run_id"):
            raise ControlApiError(self._address, "UNKNOWN", "the run was rejected")
        return int(response.run_id)

    def find_run(self, run_id: int, seconds: float) -> KnownRun:
        """Return a run.

        Args:
            run_id: The run.
            seconds: How long to wait for the answer.

        Raises:
            ControlApiError: The SuperLink does not know the run (`NOT_FOUND`), or did not answer in time.
        """
        runs = self._call(self._stub.ListRuns, ListRunsRequest(run_id=run_id), timeout=seconds).run_dict
        return _known_run(runs[run_id])

    def list_runs(self, seconds: float) -> list[KnownRun]:
        """Return all runs that the SuperLink knows.

        Args:
            seconds: How long to wait for the answer.

        Raises:
            ControlApiError: The SuperLink cannot be reached, or did not answer in time.
        """
        runs = self._call(self._stub.ListRuns, ListRunsRequest(), timeout=seconds).run_dict
        return [_known_run(run) for run in runs.values()]

    def stop_run(self, run_id: int, seconds: float) -> None:
        """Stop a run.

        Args:
            run_id: The run.
            seconds: How long to wait for the answer.

        Raises:
            ControlApiError: The run has ended already (`FAILED_PRECONDITION`), or the SuperLink did not answer in time.
        """
        if not self._call(self._stub.StopRun, StopRunRequest(run_id=run_id), timeout=seconds).success:
            raise ControlApiError(self._address, "UNKNOWN", f"run {run_id} could not be stopped")

    def stream_log(self, run_id: int, after: float, seconds: float) -> Iterator[tuple[str, float]]:
        """Yield parts of a run's log as they appear, each with the time of its last line; end when the run has ended.

        Args:
            run_id: The run.
            after: Time of the last line that is not needed again, in seconds since the epoch; 0.0 for the whole log.
            seconds: How long to stream.

        Raises:
            ControlApiError: The stream was interrupted. The code is `DEADLINE_EXCEEDED` after `seconds`.
        """
        request = StreamLogsRequest(run_id=run_id, after_timestamp=after)
        try:
            for part in self._stub.StreamLogs(request, timeout=seconds):
                yield part.log_output, part.latest_timestamp
        except grpc.RpcError as error:
            raise self._error(error) from error

    def _method(self, name: str) -> Callable[..., Any]:
        """Return a method of the service that Flower's API lacks."""
        method: Callable[..., Any] = self._channel.unary_unary(
            f"/{SERVICE}/{name}", request_serializer=encode, response_deserializer=decode
        )
        return method

    def _list_nodes(self, **options: Any) -> list[KnownNode]:
        nodes = self._call(self._stub.ListNodes, ListNodesRequest(), **options).nodes_info
        return [KnownNode(node.node_id, node.status, _last_heartbeat(node), bytes(node.public_key)) for node in nodes]

    def _call(self, method: Callable[..., Any], request: Any, **options: Any) -> Any:
        try:
            return method(request, **options)
        except grpc.RpcError as error:
            raise self._error(error) from error

    def _error(self, error: Any) -> ControlApiError:
        details = str(error.details())
        flower = FlowerError.from_json(details)
        return ControlApiError(self._address, error.code().name, flower.message if flower else details)


def _known_run(run: Run) -> KnownRun:
    status = ":".join(part for part in (run.status.status, run.status.sub_status) if part)
    submitted = datetime.fromisoformat(run.pending_at).timestamp() if run.pending_at else 0.0
    return KnownRun(run.run_id, status, run.status.details, submitted)


def _last_heartbeat(node: NodeInfo) -> float | None:
    """Return when a node last sent a heartbeat: two heartbeat intervals before it counts as offline."""
    return node.online_until - HEARTBEAT_PATIENCE * node.heartbeat_interval if node.online_until else None
