"""The SuperNode's Runtime API, which ClientApp processes and the executor call."""

from logging import INFO

import grpc
from flwr.common.logger import log
from flwr.proto import message_pb2, runtime_pb2
from flwr.proto.runtime_pb2_grpc import add_RuntimeServicer_to_server
from flwr.supercore.grpc import generic_create_grpc_server
from flwr.supercore.interceptors import (
    RpcErrorTranslationServerInterceptor,
    create_supernode_runtime_token_auth_server_interceptor,
    create_supernode_runtime_version_server_interceptor,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.servicer.runtime.runtime_servicer import SuperNodeRuntimeServicer

from bouquet.flower.holding import hold, requested_hold
from bouquet.flower.node_session import REPLIES, TASKS, NodeSession

TASK_HOLD_SECONDS = 20.0
"""How long the API holds a question for pending tasks when there is none."""


class NodeRuntimeServicer(SuperNodeRuntimeServicer):
    """Flower's Runtime API, which also holds questions for tasks and wakes the main loop for replies."""

    def __init__(
        self, state_factory: NodeStateFactory, object_store_factory: ObjectStoreFactory, session: NodeSession
    ) -> None:
        super().__init__(state_factory, object_store_factory)
        self._session = session

    def PullPendingTasks(
        self, request: runtime_pb2.PullPendingTasksRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PullPendingTasksResponse:
        """Answer once a task is pending whose message is complete."""
        response = runtime_pb2.PullPendingTasksResponse()
        respond = super().PullPendingTasks

        def ready() -> bool:
            nonlocal response
            if not self._session.is_receiving:
                response = respond(request, context)
            return bool(response.tasks)

        seconds = requested_hold(context, TASK_HOLD_SECONDS, default=TASK_HOLD_SECONDS)
        hold(self._session.notifier, TASKS, ready, seconds, context)
        return response

    def PushMessages(
        self, request: runtime_pb2.PushAppMessagesRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PushAppMessagesResponse:
        """Store a reply without its objects, and wake the main loop."""
        response = super().PushMessages(request, context)
        self._session.notifier.notify(REPLIES)
        return response

    def PushObject(
        self, request: message_pb2.PushObjectRequest, context: grpc.ServicerContext
    ) -> message_pb2.PushObjectResponse:
        """Store an object of a reply, and wake the main loop."""
        response = super().PushObject(request, context)
        self._session.notifier.notify(REPLIES)
        return response


def serve_runtime_api(
    address: str, state_factory: NodeStateFactory, object_store_factory: ObjectStoreFactory, session: NodeSession
) -> grpc.Server:
    """Start the Runtime API and return its server.

    It has no TLS and no secret for the executor, because both ends are in one container or on one host's loopback.

    Args:
        address: `host:port` to listen on.
        state_factory: Returns the node's messages, runs and tasks.
        object_store_factory: Returns the node's objects.
        session: The SuperNode that the API belongs to.
    """
    server = generic_create_grpc_server(
        (NodeRuntimeServicer(state_factory, object_store_factory, session), add_RuntimeServicer_to_server),
        address,
        interceptors=[
            RpcErrorTranslationServerInterceptor(),
            create_supernode_runtime_token_auth_server_interceptor(state_provider=state_factory.state),
            create_supernode_runtime_version_server_interceptor(),
        ],
    )
    log(INFO, "Flower Deployment Runtime: Starting Runtime API on %s", server.bound_address)
    server.start()
    return server
