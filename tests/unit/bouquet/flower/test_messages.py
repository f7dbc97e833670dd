"""Messages that are made from those of Flower."""

from bouquet.flower.messages import error_from_node
from flwr.common.constant import SUPERLINK_NODE_ID

from tests.unit.bouquet.flower.node_fakes import error_to, message


def test_an_error_that_the_superlink_gives_on_behalf_of_a_node_comes_from_that_node_and_names_it() -> None:
    given = error_to(message(1))
    named = error_from_node(given, 42)
    assert (named.metadata.src_node_id, named.error.reason) == (42, "SuperNode 42: killed")
    assert named.error.code == given.error.code
    for name in ("run_id", "message_id", "dst_node_id", "reply_to_message_id", "group_id", "created_at", "ttl"):
        assert getattr(named.metadata, name) == getattr(given.metadata, name)
    assert given.metadata.src_node_id != SUPERLINK_NODE_ID
