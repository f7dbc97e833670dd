from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from bouquet.flower.message_state import MAX_REDELIVERIES
from tests.unit.bouquet.flower.fakes import Traffic


@pytest.fixture
def traffic(tmp_path: Path) -> Traffic:
    return Traffic(tmp_path / "superlink.db")


def test_a_message_survives_a_restart_with_its_content_and_is_delivered_once(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.restart()
    assert traffic.state.messages.missing(message.object_id) == set()
    for name, content in get_all_nested_objects(message).items():
        assert traffic.state.get_object(traffic.run_id, name) == content.deflate()
    assert traffic.pull() == [message.object_id]
    traffic.restart()
    assert traffic.pull() == []


def test_messages_keep_their_order(traffic: Traffic) -> None:
    sent = [traffic.send(number).object_id for number in range(5)]
    traffic.restart()
    assert [traffic.pull()[0] for _ in sent] == sent


def test_a_message_whose_objects_were_being_pushed_is_completed_after_a_restart_by_the_same_session(
    traffic: Traffic,
) -> None:
    message = traffic.message()
    session, objects = traffic.push(message)
    (first, content), *others = objects.items()
    assert traffic.state.store_object(traffic.run_id, session, first, content)
    traffic.restart()
    assert traffic.state.messages.missing(message.object_id) == {name for name, _ in others}
    for name, content in objects.items():  # the first again, too: its answer was lost
        assert traffic.state.store_object(traffic.run_id, session, name, content)
    assert traffic.state.messages.missing(message.object_id) == set()


def test_a_repeated_push_adds_nothing(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.restart()
    _, missing = traffic.push(message)
    assert missing == {}
    assert traffic.state.num_message_ins() == 1


def test_a_message_stored_without_its_object_tree_is_pushed_again(traffic: Traffic) -> None:
    message = traffic.message()
    traffic.state.store_message_ins(remove_content_from_message(message))
    traffic.restart()
    assert traffic.pull() == []
    traffic.push(message)
    assert traffic.state.num_message_ins() == 1


def test_a_damaged_object_counts_as_missing(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.files.write("object", message.object_id, b"torn")
    traffic.restart()
    assert traffic.state.messages.missing(message.object_id) == {message.object_id}


def test_a_reply_is_redelivered_until_it_is_confirmed(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.pull()
    traffic.state.object_store.delete(message.object_id)  # the node has confirmed
    reply = traffic.reply(message)
    traffic.restart()
    for _ in range(2):  # the answer to the first is lost in the crash
        assert traffic.pull_replies(message) == [reply.object_id]
        traffic.restart()
    assert traffic.pull_replies(message) == [reply.object_id]
    traffic.state.object_store.delete(reply.object_id)  # the ServerApp has confirmed
    assert traffic.count_files() == 0


def test_a_run_that_has_ended_leaves_no_files(traffic: Traffic) -> None:
    answered, given, waiting = (traffic.send(number) for number in range(3))
    assert [traffic.pull(), traffic.pull()] == [[answered.object_id], [given.object_id]]
    traffic.reply(answered)
    traffic.pull_replies(answered)
    assert waiting.object_id in traffic.state.messages.message_ins_store
    traffic.state.cleanup_run(traffic.run_id)
    assert traffic.count_files() == 0


def test_a_message_that_the_node_has_not_confirmed_is_redelivered(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.pull()
    assert [lost.metadata.message_id for lost in traffic.state.messages.unanswered(traffic.node_id)] == [
        message.object_id
    ]
    assert traffic.state.messages.redeliver(message.object_id)
    assert traffic.pull() == [message.object_id]


def test_a_message_is_redelivered_a_limited_number_of_times(traffic: Traffic) -> None:
    message = traffic.send()
    assert traffic.pull() == [message.object_id]
    times = 0
    while traffic.state.messages.redeliver(message.object_id):
        times += 1
        assert traffic.pull() == [message.object_id]
    assert times == MAX_REDELIVERIES


def test_a_message_that_the_node_has_confirmed_is_not_redelivered(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.pull()
    traffic.state.object_store.delete(message.object_id)
    traffic.restart()
    assert [lost.metadata.message_id for lost in traffic.state.messages.unanswered(traffic.node_id)] == [
        message.object_id
    ]
    assert not traffic.state.messages.redeliver(message.object_id)


def test_a_message_with_a_complete_reply_is_answered(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.pull()
    traffic.reply(message)
    assert traffic.state.messages.unanswered(traffic.node_id) == []


def test_an_incomplete_reply_is_replaced_by_another(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.pull()
    traffic.push(Message(RecordDict({"config": ConfigRecord({"number": 100})}), reply_to=message))
    assert len(traffic.state.messages.unanswered(traffic.node_id)) == 1
    traffic.state.messages.drop_reply(message.object_id)
    assert traffic.state.num_message_res() == 0
    traffic.reply(message)
    assert traffic.state.messages.unanswered(traffic.node_id) == []


def test_a_node_gets_its_own_messages_and_those_of_other_nodes_are_not_looked_at(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = traffic.state.messages
    first, own = traffic.node_id, traffic.state.create_node("owner", "name", b"other key", 30)
    traffic.state.activate_node(own, 30)
    others = [traffic.send(number) for number in range(3)]
    traffic.node_id = own
    message = traffic.send()
    looked_at: set[str] = set()
    check = state._check_stored_messages

    def recorded_check(message_ids: set[str]) -> None:
        looked_at.update(message_ids)
        check(message_ids)

    monkeypatch.setattr(state, "_check_stored_messages", recorded_check)
    assert traffic.pull() == [message.object_id]
    assert looked_at == {message.object_id}
    assert traffic.pull() == []
    traffic.node_id = first
    assert [traffic.pull() for _ in others] == [[other.object_id] for other in others]


def test_a_deleted_message_is_forgotten_for_its_node(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.state.delete_messages({message.object_id})
    assert traffic.pull() == []
    assert traffic.state.messages.unanswered(traffic.node_id) == []
