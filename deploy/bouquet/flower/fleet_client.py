"""The SuperNode's connection to the SuperLink's Fleet API."""

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_CALL_TIMEOUT, HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import fab_from_proto, message_from_proto, message_to_proto, run_from_proto
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.retry import RetryInvoker
from flwr.supercore.run import Run, RunNotRunningException

from bouquet.contract.partitions import NUM_PARTITIONS_HEADER
from bouquet.flower.channels import open_channel
from bouquet.flower.heartbeat import Heartbeat
from bouquet.flower.holding import HoldClientInterceptor
from bouquet.flower.partition_interceptor import Partition, PartitionInterceptor
from bouquet.flower.signatures import NodeKeys, SigningInterceptor


class SuperLinkUnreachableError(Exception):
    """The SuperNode has given up on a call: the SuperLink could not be reached in time, or it refused the call."""


class FleetClient:
    """A SuperNode's connection to a SuperLink, on which the node is active within a `with` block.

    Each call is repeated while the SuperLink is unavailable. It raises `SuperLinkUnreachableError` when the retry
    invoker gives up, and `RunNotRunningException` if the call is about a run that has ended. A SuperLink that no longer
    accepts the node's key ends the process as SIGINT does. Heartbeats are sent in a thread of their own.
    """

    def __init__(
        self,
        address: str,
        root_certificates: bytes | None,
        keys: NodeKeys | None,
        retry_invoker: RetryInvoker,
        on_online: Callable[[int], None] = lambda node_id: None,
        on_offline: Callable[[str], None] = lambda reason: None,
        partition: Partition | None = None,
    ) -> None:
        """Prepare a connection; entering the `with` block makes the first call.

        Args:
            address: `host:port` of the Fleet API.
            root_certificates: The CA certificates by which to verify the SuperLink, in PEM. None: no TLS.
            keys: The node's keys, which were registered beforehand. None: the node generates keys and registers itself.
            retry_invoker: Repeats calls that fail.
            on_online: Called with the node id once the node is active, and at each acknowledged heartbeat.
            on_offline: Called with the reason after a heartbeat that shows that the node is offline.
            partition: The node's partition, which the SuperLink is told, or assigns; None: it is not mentioned.
        """
        self._registers_itself = keys is None
        keys = keys or generate_key_pairs()
        self._public_key = public_key_to_bytes(keys[1])
        self._retry_invoker = retry_invoker
        self._on_online = on_online
        self._node = Node()
        self._heartbeat = Heartbeat(self._send_heartbeat, lambda: on_online(self.node_id), on_offline)
        self._channel = open_channel(
            address,
            root_certificates,
            [
                RuntimeVersionClientInterceptor(component_name="SuperNode"),
                SigningInterceptor(keys),
                HoldClientInterceptor(),
                *([] if partition is None else [PartitionInterceptor(partition)]),
            ],
        )
        self._stub = FleetStub(self._channel)

    @property
    def node_id(self) -> int:
        """The id by which the SuperLink knows the node."""
        return int(self._node.node_id)

    def __enter__(self) -> Self:
        """Activate the node."""
        try:
            if self._registers_itself:
                self._call(self._stub.RegisterNode, RegisterNodeFleetRequest(public_key=self._public_key))
            request = ActivateNodeRequest(public_key=self._public_key, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
            self._node = Node(node_id=self._call(self._stub.ActivateNode, request).node_id)
        except RunNotRunningException as error:  # what Flower's invoker makes of PERMISSION_DENIED
            self._channel.close()
            raise SuperLinkUnreachableError("the SuperLink does not permit it") from error
        except BaseException:
            self._channel.close()
            raise
        self._on_online(self.node_id)
        self._heartbeat.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Deactivate the node and close the connection. It tries once, and does not care about the answer."""
        self._retry_invoker.max_tries = 1
        try:
            if self._heartbeat.is_running:
                self._heartbeat.stop()
            self._call(self._stub.DeactivateNode, DeactivateNodeRequest(node_id=self.node_id))
            if self._registers_itself:
                self._call(self._stub.UnregisterNode, UnregisterNodeFleetRequest(node_id=self.node_id))
        except (SuperLinkUnreachableError, RunNotRunningException):
            pass
        finally:
            self._channel.close()

    def receive(self) -> tuple[Message, ObjectTree] | None:
        """Return the next message for the node, without its content, and the ids of its objects; None: there is none.

        A SuperLink of ours answers when there is a message, or empty after 20 s.
        """
        response = self._call(self._stub.PullMessages, PullMessagesRequest(node=self._node))
        if not response.messages_list:
            return None
        return message_from_proto(response.messages_list[0]), response.message_object_trees[0]

    def send(self, message: Message, object_tree: ObjectTree, clientapp_seconds: float) -> tuple[set[str], str]:
        """Send a reply without its content.

        Args:
            message: The reply.
            object_tree: The ids of its objects.
            clientapp_seconds: How long the ClientApp worked on it.

        Returns:
            The ids of the objects that the SuperLink lacks, and the session in which to push them.
        """
        request = PushMessagesRequest(
            node=self._node,
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[object_tree],
            clientapp_runtime_list=[clientapp_seconds],
        )
        response = self._call(self._stub.PushMessages, request)
        return set(response.objects_to_push), response.session_id

    def get_run(self, run_id: int) -> Run:
        """Return a run, which must not have ended."""
        return run_from_proto(self._call(self._stub.GetRun, GetRunRequest(node=self._node, run_id=run_id)).run)

    def join_run(self, run_id: int) -> tuple[Run, int | None]:
        """Return a run, which must not have ended, and its number of partitions; None if the SuperLink does not say."""
        request = GetRunRequest(node=self._node, run_id=run_id)
        response, call = self._call(self._stub.GetRun.with_call, request)
        num_partitions = dict(call.trailing_metadata() or ()).get(NUM_PARTITIONS_HEADER)
        return run_from_proto(response.run), None if num_partitions is None else int(num_partitions)

    def get_fab(self, fab_hash: str, run_id: int) -> Fab:
        """Return the app of a run."""
        request = GetFabRequest(node=self._node, hash_str=fab_hash, run_id=run_id)
        return fab_from_proto(self._call(self._stub.GetFab, request).fab)

    def pull_object(self, run_id: int, object_id: str) -> bytes:
        """Return an object of a message; raises Flower's `ObjectUnavailableError` while it is still on its way."""
        call = partial(self._call, self._stub.PullObject)
        return make_pull_object_fn_protobuf(call, self._node, run_id)(object_id)

    def push_object(self, run_id: int, session_id: str, object_id: str, content: bytes) -> None:
        """Push an object of a reply in the session that `send` returned."""
        call = partial(self._call, self._stub.PushObject)
        make_push_object_fn_protobuf(call, self._node, run_id, session_id)(object_id, content)

    def confirm_message_received(self, run_id: int, message_id: str) -> None:
        """Confirm that a message and all its objects are here, so that the SuperLink need not deliver it again."""
        call = partial(self._call, self._stub.ConfirmMessageReceived)
        make_confirm_message_received_fn_protobuf(call, self._node, run_id)(message_id)

    def _call(self, method: Callable[[Any], Any], request: Any) -> Any:
        try:
            return self._retry_invoker.invoke(method, request)
        except grpc.RpcError as error:
            raise SuperLinkUnreachableError(f"{error.code().name}: {error.details()}") from error

    def _send_heartbeat(self) -> bool:
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        return bool(self._stub.SendNodeHeartbeat(request, timeout=HEARTBEAT_CALL_TIMEOUT).success)
