"""Messages that Bouquet makes from those of Flower."""

from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message


def error_from_node(reply: Message, node_id: int) -> Message:
    """Return an error that the SuperLink gave on behalf of a node as an error from that node, whose reason names it.

    Args:
        reply: The SuperLink's error reply.
        node_id: The node that should have replied.
    """
    metadata = reply.metadata
    return make_message(
        metadata=Metadata(
            run_id=metadata.run_id,
            message_id=metadata.message_id,
            src_node_id=node_id,
            dst_node_id=metadata.dst_node_id,
            reply_to_message_id=metadata.reply_to_message_id,
            group_id=metadata.group_id,
            created_at=metadata.created_at,
            ttl=metadata.ttl,
            message_type=metadata.message_type,
            src_task_id=metadata.src_task_id,
            dst_task_id=metadata.dst_task_id,
        ),
        error=Error(reply.error.code, f"SuperNode {node_id}: {reply.error.reason}"),
    )
