"""Flower messages with other metadata: Flower has no public way to change a message's metadata."""

from typing import Any

from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

METADATA_FIELDS = (
    "run_id",
    "message_id",
    "src_node_id",
    "dst_node_id",
    "reply_to_message_id",
    "group_id",
    "created_at",
    "ttl",
    "message_type",
    "src_task_id",
    "dst_task_id",
)


def with_message_id(message: Message) -> Message:
    """Return the message with its object id as message id: a message and its content have one name in Flower.

    Args:
        message: A message whose other metadata is complete, because the object id is a hash of it.
    """
    metadata = _changed(message.metadata, message_id=message.object_id)
    if message.has_error():
        return make_message(metadata, error=message.error)
    return make_message(metadata, content=message.content)


def error_from_node(reply: Message, node_id: int, reason: str) -> Message:
    """Return an error reply as one from a node: the SuperLink answers for a node that has left.

    Args:
        reply: The error reply.
        node_id: The node that should have replied.
        reason: The reason that the new reply has.
    """
    metadata = _changed(reply.metadata, src_node_id=node_id)
    return make_message(metadata, error=Error(reply.error.code, reason))


def error_in_place_of(reply: Message, error: Error) -> Message:
    """Return an error with the metadata of a reply that had content."""
    return make_message(reply.metadata, error=error)


def deflated(message: Message) -> tuple[ObjectTree, dict[str, bytes]]:
    """Return the tree of a message's objects, and the bytes of each object by its id: what a sender transfers."""
    return get_object_tree(message), {
        object_id: each.deflate() for object_id, each in get_all_nested_objects(message).items()
    }


def _changed(metadata: Metadata, **changes: Any) -> Metadata:
    """Return a copy of a message's metadata in which some fields have other values."""
    return Metadata(**{name: getattr(metadata, name) for name in METADATA_FIELDS} | changes)
