from pathlib import Path

from flwr.app import Error, Message
from flwr.common.serde_utils import metadata_to_proto

from bouquet.flower.messages import error_from_node, with_message_id
from tests.unit.bouquet.flower.fakes import Traffic
from tests.unit.bouquet.flower.node_fakes import error_to, message


def test_a_message_is_named_by_its_object_id_and_otherwise_the_same(tmp_path: Path) -> None:
    sent = Traffic(tmp_path / "superlink.db").message()
    reply = Message(sent.content, reply_to=sent)
    named = with_message_id(reply)
    assert named.metadata.message_id == named.object_id == reply.object_id
    assert named.content == reply.content
    expected = metadata_to_proto(reply.metadata)
    expected.message_id = reply.object_id
    assert metadata_to_proto(named.metadata) == expected
    assert reply.metadata.message_id == ""


def test_an_error_is_named_by_its_object_id(tmp_path: Path) -> None:
    error = Error(1, "the reason")
    named = with_message_id(Message(error, reply_to=Traffic(tmp_path / "superlink.db").message()))
    assert named.metadata.message_id == named.object_id
    assert (named.has_content(), named.error.reason) == (False, "the reason")


def test_an_error_that_the_superlink_gives_on_behalf_of_a_node_comes_from_that_node() -> None:
    given = with_message_id(error_to(message(1)))
    named = error_from_node(given, 42, "partition-id 4: killed")
    assert (named.metadata.src_node_id, named.error.reason) == (42, "partition-id 4: killed")
    assert named.error.code == given.error.code
    expected = metadata_to_proto(given.metadata)
    expected.src_node_id = 42
    assert metadata_to_proto(named.metadata) == expected
