"""Flower messages with other metadata: Flower has no public way to change a message's metadata."""

from flwr.app import Message, Metadata
from flwr.app.message import make_message


def with_message_id(message: Message) -> Message:
    """Return the message with its object id as message id: a message and its content have one name in Flower.

    Args:
        message: A message whose other metadata is complete: the object id is a hash of them.
    """
    old = message.metadata
    metadata = Metadata(
        run_id=old.run_id,
        message_id=message.object_id,
        src_node_id=old.src_node_id,
        dst_node_id=old.dst_node_id,
        reply_to_message_id=old.reply_to_message_id,
        group_id=old.group_id,
        created_at=old.created_at,
        ttl=old.ttl,
        message_type=old.message_type,
        src_task_id=old.src_task_id,
        dst_task_id=old.dst_task_id,
    )
    if message.has_error():
        return make_message(metadata, error=message.error)
    return make_message(metadata, content=message.content)
