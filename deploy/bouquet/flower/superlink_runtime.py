"""The SuperLink's Runtime API, which ServerApps and executors call: it holds calls until there is an answer."""

import grpc
from flwr.proto import log_pb2, message_pb2, runtime_pb2
from flwr.supercore.interceptors import get_authenticated_task
from flwr.superlink.servicer.runtime.runtime_servicer import SuperLinkRuntimeServicer

from bouquet.flower.holding import hold, requested_hold
from bouquet.flower.link_state import StateFactory
from bouquet.flower.object_files import ObjectFilesFactory
from bouquet.flower.superlink_events import LOGS, TASKS, SuperLinkEvents, missing_objects, node_key, replies_key

REPLY_HOLD_SECONDS = 5.0  # of a ServerApp's PullMessages; a stock ServerApp asks every 3 s, which finds offline nodes
TASK_HOLD_SECONDS = 5.0  # of PullPendingTasks, in which Flower also starts automations that are due


class EventRuntimeServicer(SuperLinkRuntimeServicer):
    """Flower's Runtime API with held calls. Each method does what Flower's does, and waits or notifies in addition."""

    def __init__(
        self, state_factory: StateFactory, objectstore_factory: ObjectFilesFactory, events: SuperLinkEvents
    ) -> None:
        super().__init__(state_factory, objectstore_factory)
        self._states = state_factory
        self._events = events

    def PullPendingTasks(
        self, request: runtime_pb2.PullPendingTasksRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PullPendingTasksResponse:
        """Return the pending tasks, once there is one."""
        notifier = self._events.notifier
        since = notifier.count(TASKS)
        response = super().PullPendingTasks(request, context)
        seconds = requested_hold(context, TASK_HOLD_SECONDS, default=TASK_HOLD_SECONDS)
        if seconds and not response.tasks:
            hold(notifier, TASKS, lambda: notifier.count(TASKS) != since, seconds, context)
            response = super().PullPendingTasks(request, context)
        return response

    def CreateTask(
        self, request: runtime_pb2.CreateTaskRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.CreateTaskResponse:
        """Create a task of a run, and wake the executor."""
        response = super().CreateTask(request, context)
        self._events.add_task()
        return response

    def PushMessages(
        self, request: runtime_pb2.PushAppMessagesRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PushAppMessagesResponse:
        """Store messages, answer with the objects that are missing from them, and announce them to their nodes."""
        deliveries = self._events.deliveries
        messages = [
            (node_key(message.metadata.dst_node_id), message.metadata.message_id) for message in request.messages_list
        ]
        with deliveries.expecting(messages):
            response = super().PushMessages(request, context)
            to_push = set(response.objects_to_push)
            for (key, message_id), stored, tree in zip(
                messages, response.message_ids, request.message_object_trees, strict=True
            ):
                if stored:
                    deliveries.announce(key, message_id, missing_objects(tree, to_push))
        return response

    def PushObject(
        self, request: message_pb2.PushObjectRequest, context: grpc.ServicerContext
    ) -> message_pb2.PushObjectResponse:
        """Store an object of a message, which may complete it."""
        response = super().PushObject(request, context)
        if response.stored:
            self._events.deliveries.object_arrived(request.object_id)
        return response

    def PullMessages(
        self, request: runtime_pb2.PullAppMessagesRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PullAppMessagesResponse:
        """Return the complete replies to messages. On request, wait for the first, or until a node is offline."""
        events, deliveries = self._events, self._events.deliveries
        key = replies_key(get_authenticated_task().run_id)
        asked = set(request.message_ids)
        seconds = requested_hold(context, REPLY_HOLD_SECONDS)
        offline_count = events.offline_count
        if seconds and not self._states.state().messages.has_offline_recipient(asked):
            hold(
                events.notifier,
                key,
                lambda: bool(asked & deliveries.complete(key)) or events.offline_count != offline_count,
                seconds,
                context,
            )
        # Flower looks at each message that it is asked about, at its node too: only where no reply is complete. An
        # incomplete reply is delivered by a later call.
        wanted = asked & deliveries.complete(key) or asked - deliveries.incomplete(key)
        if asked and not wanted:
            return runtime_pb2.PullAppMessagesResponse()
        deliveries.forget(key, deliveries.complete(key) & wanted)
        return super().PullMessages(runtime_pb2.PullAppMessagesRequest(message_ids=wanted), context)

    def PushLogs(self, request: log_pb2.PushLogsRequest, context: grpc.ServicerContext) -> log_pb2.PushLogsResponse:
        """Store log lines of a run, and wake the calls that stream logs."""
        response = super().PushLogs(request, context)
        self._events.notifier.notify(LOGS)
        return response

    def PushTaskOutput(
        self, request: runtime_pb2.PushTaskOutputRequest, context: grpc.ServicerContext
    ) -> runtime_pb2.PushTaskOutputResponse:
        """Mark a run's task as finished, and wake all calls that wait for something of the run."""
        run_id = get_authenticated_task().run_id
        response = super().PushTaskOutput(request, context)
        self._events.end_run(run_id)
        return response
