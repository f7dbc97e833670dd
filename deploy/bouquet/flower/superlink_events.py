"""Events of a SuperLink, by which its servicers notify each other, the executor and the process that started it."""

from collections.abc import Callable, Hashable

from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import OBJECT_PUSH_SESSION_TTL_SECONDS
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

from bouquet.flower.delivery_tracker import DeliveryTracker
from bouquet.flower.liveness import Liveness
from bouquet.flower.message_state import MessageState
from bouquet.flower.notifier import KeyedNotifier

TASKS, LOGS = "tasks", "logs"
"""Keys of the notifier: there is a new task; there are new log lines, or a run has ended."""


def node_key(node_id: int) -> Hashable:
    """Return the key of a node: there is a complete message for it."""
    return ("node", node_id)


def replies_key(run_id: int) -> Hashable:
    """Return the key of a run's ServerApp: there is a complete reply for it, or it should look at its nodes."""
    return ("replies", run_id)


def end_key(run_id: int) -> Hashable:
    """Return the key of a run's end."""
    return ("end", run_id)


def missing_objects(tree: ObjectTree, objects_to_push: set[str]) -> set[str]:
    """Return which of the objects that a sender is asked to push belong to one message."""
    return {node.object_id for node in iterate_object_tree(tree)} & objects_to_push


class SuperLinkEvents:
    """What happens in one SuperLink.

    Attributes:
        notifier: Wakes the calls that wait for an event.
        deliveries: Which messages for nodes and which replies for ServerApps are complete.
        liveness: Which nodes still call.
        removed: The ids of the nodes that were removed while calls of theirs may be held.
        offline_count: How many times a node went offline.
        is_responsive: Returns True once the SuperLink's state answers; waits for ever if it has deadlocked.
        on_serving: See `__init__`.
        on_task: See `__init__`.
        on_run_ended: See `__init__`.
    """

    def __init__(
        self,
        on_serving: Callable[[], None] = lambda: None,
        on_task: Callable[[], None] = lambda: None,
        on_run_ended: Callable[[int], None] = lambda run_id: None,
    ) -> None:
        """Start without events.

        Args:
            on_serving: Called once the Control, Runtime and Fleet APIs accept calls.
            on_task: Called when there is a new task.
            on_run_ended: Called with the id of a run that a user has stopped.
        """
        self.notifier = KeyedNotifier()
        self.deliveries = DeliveryTracker(self.notifier, expiry_seconds=OBJECT_PUSH_SESSION_TTL_SECONDS)
        self.liveness = Liveness(self.notifier)
        self.removed: set[int] = set()
        self.offline_count = 0
        self.is_responsive: Callable[[], bool] = lambda: True
        self.on_serving = on_serving
        self.on_task = on_task
        self.on_run_ended = on_run_ended

    def add_task(self) -> None:
        """Wake the calls that wait for tasks."""
        self.notifier.notify(TASKS)
        self.on_task()

    def restore(self, messages: MessageState) -> None:
        """Announce the messages and replies that an earlier process has left."""
        for message in messages.undelivered():
            message_id = message.metadata.message_id
            self.deliveries.announce(node_key(message.metadata.dst_node_id), message_id, messages.missing(message_id))
        for reply in messages.replies():
            missing = messages.missing(reply.metadata.message_id)
            self.deliveries.announce(replies_key(reply.metadata.run_id), reply.metadata.reply_to_message_id, missing)

    def notify_offline(self, messages: MessageState, node_id: int) -> None:
        """Wake the ServerApps that wait for a node that went offline: Flower answers with an error in its place."""
        self.offline_count += 1
        for run_id in messages.runs_waiting_for(node_id):
            self.notifier.notify(replies_key(run_id))

    def notify_removed(self, messages: MessageState, node_id: int) -> None:
        """Have the held calls of a node that was removed refused, and wake the ServerApps that wait for it."""
        self.removed.add(node_id)
        self.notifier.notify(node_key(node_id))
        self.notify_offline(messages, node_id)

    def end_run(self, run_id: int) -> None:
        """Wake all calls that wait for something of a run that has ended."""
        self.deliveries.forget(replies_key(run_id))
        self.notifier.notify(replies_key(run_id))
        self.notifier.notify(end_key(run_id))
        self.notifier.notify(LOGS)
