"""Flower messages with other metadata: Flower has no public way to change a message's metadata."""

from typing import Any

from flwr.app import Message, Metadata
from flwr.app.message import make_message

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


def _changed(metadata: Metadata, **changes: Any) -> Metadata:
    """Return a copy of a message's metadata in which some fields have other values."""
    return Metadata(**{name: getattr(metadata, name) for name in METADATA_FIELDS} | changes)
