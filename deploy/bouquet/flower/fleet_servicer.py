"""The Fleet API, which SuperNodes call: it holds calls until there is an answer, and redelivers lost messages.

A SuperNode does one thing after the other: when it asks for a message, it works on none. So a message that was
delivered to it and has no reply was lost with a process or a connection. The message is redelivered if the node has not
confirmed it, and answered with an error otherwise.
"""

import time
from contextlib import suppress
from logging import INFO, WARNING
from pathlib import Path

import grpc
from flwr.app import Error, Message
from flwr.common.constant import (
    HEARTBEAT_DEFAULT_INTERVAL,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    PUBLIC_KEY_HEADER,
    ErrorCode,
)
from flwr.common.logger import log
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.supercore.constant import NodeStatus
from flwr.supercore.utils import get_metadata_bytes

from bouquet.contract.keys import derive_key, public_key
from bouquet.contract.partitions import NUM_PARTITIONS_HEADER, PARTITION_ID_HEADER, read_num_partitions
from bouquet.flower.holding import HeldCalls, hold, requested_hold
from bouquet.flower.link_state import StateFactory
from bouquet.flower.messages import deflated, with_message_id
from bouquet.flower.object_files import ObjectFilesFactory
from bouquet.flower.superlink_events import SuperLinkEvents, end_key, missing_objects, node_key, replies_key
from bouquet.settings.env import MAX_SUPERNODES
from bouquet.superlink.node_records import NodeRecords
from bouquet.superlink.partition_map import NoPartitionError, Origin, PartitionMap

NODE_HOLD_SECONDS = 20.0  # of a PullMessages without a message
RUN_HOLD_SECONDS = 20.0  # of a GetRun that waits for the run's end
MAX_CALLS = 4 * MAX_SUPERNODES
"""Calls at a time, and threads. gRPC refuses more, and a SuperNode whose call is refused ends."""
MAX_HELD_CALLS = 3 * MAX_SUPERNODES
"""Of them, calls that are held: a node has one that waits for a message, and one for the end of each of its runs."""


class EventFleetServicer(FleetServicer):
    """Flower's Fleet API with held calls. Each method does what Flower's does, and waits or notifies in addition."""

    def __init__(
        self,
        state_factory: StateFactory,
        objectstore_factory: ObjectFilesFactory,
        enable_supernode_auth: bool,
        events: SuperLinkEvents,
        run_dir: Path,
        partitions: PartitionMap,
        records: NodeRecords,
        seed: bytes | None = None,
    ) -> None:
        """Prepare the API.

        Args:
            state_factory: Creates the state.
            objectstore_factory: Creates the object store.
            enable_supernode_auth: Whether only nodes with a registered key are admitted.
            events: The events of this SuperLink.
            run_dir: The SuperLink's run folder.
            partitions: Which node holds which partition.
            records: The names and kinds of nodes.
            seed: The secret from which the nodes of a cluster derive their keys; None outside of a cluster.
        """
        super().__init__(state_factory, objectstore_factory, enable_supernode_auth)
        self._states = state_factory
        self._events = events
        self._run_dir = run_dir
        self._partitions = partitions
        self._records = records
        self._seed = seed
        self._held = HeldCalls(MAX_HELD_CALLS)
        self._heartbeats: dict[int, float] = {}  # the time of the newest one of each node, or of a call in its place
        self._pulls: dict[int, object] = {}  # the newest PullMessages of each node

    def ActivateNode(
        self, request: fleet_pb2.ActivateNodeRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.ActivateNodeResponse:
        """Mark a node as online. Flower refuses a node that is online, so that one killed and restarted had to wait.

        Here the node is admitted at once if its previous process is gone.
        """
        state, liveness = self._states.state(), self._events.liveness
        node_id = state.get_node_id_by_public_key(request.public_key)
        # The interceptor verified the key in the metadata, not that the request is about the same key.
        is_holder = get_metadata_bytes(context.invocation_metadata(), PUBLIC_KEY_HEADER) == request.public_key
        if node_id is None and is_holder:
            node_id = self._register_slot(request.public_key, context)
        if node_id is not None and is_holder and self._is_online(node_id):
            if liveness.answers(node_id):
                log(WARNING, "SuperNode %s is already online: a second process with the same key is refused", node_id)
            else:
                log(INFO, "SuperNode %s reconnected: its previous process is gone", node_id)
                state.deactivate_node(node_id)
        if node_id is not None and is_holder:
            try:
                self._admit(node_id, context)  # before a run can see the node
            except NoPartitionError as error:
                context.abort(grpc.StatusCode.UNAVAILABLE, str(error))  # the node tries again
        response = super().ActivateNode(request, context)
        self._heartbeats[response.node_id] = time.monotonic()
        liveness.seen(response.node_id)
        return response

    def DeactivateNode(
        self, request: fleet_pb2.DeactivateNodeRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.DeactivateNodeResponse:
        """Mark a node as offline, and wake the ServerApps that wait for it."""
        self._heartbeats.pop(request.node_id, None)
        response = super().DeactivateNode(request, context)
        self._partitions.gone(request.node_id, ended=True)
        self._events.notify_offline(self._states.state().messages, request.node_id)
        return response

    def SendNodeHeartbeat(
        self, request: heartbeat_pb2.SendNodeHeartbeatRequest, context: grpc.ServicerContext
    ) -> heartbeat_pb2.SendNodeHeartbeatResponse:
        """Keep a node online."""
        self._events.liveness.seen(request.node.node_id)
        self._heartbeats[request.node.node_id] = time.monotonic()
        self._note_call(request.node.node_id, context)
        return super().SendNodeHeartbeat(request, context)

    def PullMessages(
        self, request: fleet_pb2.PullMessagesRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.PullMessagesResponse:
        """Deliver one message to a node, once there is one and all its objects are here."""
        notifier, deliveries = self._events.notifier, self._events.deliveries
        node_id = request.node.node_id
        key = node_key(node_id)
        self._pulls[node_id] = this_pull = object()
        self._note_call(node_id, context)
        self._keep_online(node_id)
        self._resolve_in_flight(node_id)

        def is_superseded() -> bool:  # the node has called again, so nobody waits for this answer
            return self._pulls[node_id] is not this_pull

        def is_removed() -> bool:
            return node_id in self._events.removed

        def has_message() -> bool:
            return bool(deliveries.complete(key)) and not deliveries.incomplete(key)

        with (
            self._events.liveness.held(node_id, key, context) as is_challenged,
            self._held.seconds(NODE_HOLD_SECONDS) as seconds,
        ):
            hold(
                notifier,
                key,
                lambda: is_challenged() or is_superseded() or is_removed() or has_message(),
                seconds,
                context,
            )
        objects_missing = bool(deliveries.incomplete(key)) and not deliveries.complete(key)
        if is_superseded() or is_challenged() or (objects_missing and not is_removed()):
            return fleet_pb2.PullMessagesResponse()
        if is_removed():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "The node was removed")  # its next call is refused like this
        response = super().PullMessages(request, context)
        delivered = [message.metadata.message_id for message in response.messages_list]
        deliveries.forget(key, delivered or deliveries.complete(key))
        return response

    def PushMessages(
        self, request: fleet_pb2.PushMessagesRequest, context: grpc.ServicerContext
    ) -> fleet_pb2.PushMessagesResponse:
        """Store a reply, answer with the objects that are missing from it, and announce it to the ServerApp."""
        self._events.liveness.seen(request.node.node_id)
        self._keep_online(request.node.node_id)
        deliveries = self._events.deliveries
        replies = [
            (replies_key(message.metadata.run_id), message.metadata.reply_to_message_id)
            for message in request.messages_list
        ]
        with deliveries.expecting(replies):
            response = super().PushMessages(request, context)
            to_push = set(response.objects_to_push)
            for (key, replied_to), tree in zip(replies, request.message_object_trees, strict=True):
                deliveries.announce(key, replied_to, missing_objects(tree, to_push))
        return response

    def PushObject(
        self, request: message_pb2.PushObjectRequest, context: grpc.ServicerContext
    ) -> message_pb2.PushObjectResponse:
        """Store an object of a reply, which may complete it."""
        response = super().PushObject(request, context)
        if response.stored:
            self._events.deliveries.object_arrived(request.object_id)
        return response

    def GetRun(self, request: run_pb2.GetRunRequest, context: grpc.ServicerContext) -> run_pb2.GetRunResponse:
        """Return a run, with its number of partitions in the metadata, or an error if it has ended.

        On request, wait for the end and return the error then.
        """
        self._keep_online(request.node.node_id)
        notifier, key = self._events.notifier, end_key(request.run_id)
        since = notifier.count(key)
        response = super().GetRun(request, context)
        if wanted := requested_hold(context, RUN_HOLD_SECONDS):
            with (
                self._events.liveness.held(request.node.node_id, key, context),
                self._held.seconds(wanted) as seconds,
            ):
                hold(notifier, key, lambda: notifier.count(key) != since, seconds, context)
            response = super().GetRun(request, context)
        if num_partitions := read_num_partitions(self._run_dir, request.run_id):
            own = (NUM_PARTITIONS_HEADER, str(num_partitions))
            context.set_trailing_metadata((*(context.trailing_metadata() or ()), own))
        return response

    def _register_slot(self, key: bytes, context: grpc.ServicerContext) -> int | None:
        """Register the key of a cluster's slot, which only a holder of the seed can have; return its node id."""
        slot = Origin.of(dict(context.invocation_metadata() or ())).slot
        if self._seed is None or slot is None or public_key(derive_key(self._seed, slot)) != key:
            return None
        try:
            return int(self._states.state().create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0))
        except ValueError:  # the node was removed: Flower never registers its key again
            return None

    def _note_call(self, node_id: int, context: grpc.ServicerContext) -> None:
        """Note that a node has called; it keeps its partition while no other one is free."""
        with suppress(NoPartitionError):
            self._admit(node_id, context)

    def _admit(self, node_id: int, context: grpc.ServicerContext) -> None:
        """Note which partition a node holds, or tell it in the metadata of the answer; a stock SuperNode ignores it."""
        origin = Origin.of(dict(context.invocation_metadata() or ()))
        try:
            self._records.note_kind(node_id, origin.kind)
            assigned = self._partitions.admit(node_id, origin)
        except OSError as error:
            log(WARNING, "The partition-id of SuperNode %s cannot be written: %s", node_id, error)
            return
        told = {PARTITION_ID_HEADER: assigned, NUM_PARTITIONS_HEADER: self._partitions.num_partitions}
        metadata = [(name, str(value)) for name, value in told.items() if value is not None]
        context.set_trailing_metadata((*(context.trailing_metadata() or ()), *metadata))

    def _keep_online(self, node_id: int) -> None:
        """Have a call count as a heartbeat if the node's last one is overdue.

        The calls of a thousand nodes in the same second take longer than a heartbeat waits for its answer.
        """
        now = time.monotonic()
        if now - self._heartbeats.get(node_id, now) > HEARTBEAT_DEFAULT_INTERVAL:
            self._heartbeats[node_id] = now
            self._states.state().acknowledge_node_heartbeat(node_id, HEARTBEAT_DEFAULT_INTERVAL)

    def _is_online(self, node_id: int) -> bool:
        return bool(self._states.state().get_node_info(node_ids=[node_id], statuses=[NodeStatus.ONLINE]))

    def _resolve_in_flight(self, node_id: int) -> None:
        """Redeliver the messages that were lost on their way to a node; answer those that were lost in the node."""
        messages = self._states.state().messages
        for message in messages.unanswered(node_id):
            message_id = message.metadata.message_id
            if messages.redeliver(message_id):
                self._events.deliveries.announce(node_key(node_id), message_id, ())
            else:
                messages.drop_reply(message_id)
                reason = f"SuperNode {node_id} was restarted, or lost its connection, while it worked on the message."
                self._answer_with_error(message, reason)

    def _answer_with_error(self, message: Message, reason: str) -> None:
        """Store an error as the reply to a message, as the node would have done."""
        messages, deliveries = self._states.state().messages, self._events.deliveries
        message_id, run_id = message.metadata.message_id, message.metadata.run_id
        key = replies_key(run_id)
        reply = with_message_id(Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message))
        tree, objects = deflated(reply)
        with deliveries.expecting([(key, message_id)]):
            session_id = messages.start_session(run_id)
            stored, _ = messages.store_message_and_object_tree(reply, tree, session_id)
            if not stored:  # the run has ended
                messages.delete_messages({message_id})
                return
            for object_id, content in objects.items():
                messages.store_object(run_id, session_id, object_id, content)
            deliveries.announce(key, message_id, ())
        log(WARNING, "[RUN %s] %s", run_id, reason)
