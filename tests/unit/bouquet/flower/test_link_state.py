import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import Status
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.corestate.in_memory_corestate import InMemoryCoreState
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
)

from bouquet.flower.link_state import MESSAGES, MOST_GIVEN, OBJECTS, LinkState, Memo
from tests.unit.bouquet.flower.fakes import Traffic, open_state


@pytest.fixture
def state(tmp_path: Path) -> LinkState:
    return open_state(tmp_path / "superlink.db")


@pytest.fixture
def traffic(tmp_path: Path) -> Traffic:
    return Traffic(tmp_path / "superlink.db")


def test_a_message_outlives_the_superlink_with_its_content_and_is_handed_out_once(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.restart()
    assert traffic.state.missing(message.object_id) == set()
    for name, content in get_all_nested_objects(message).items():
        assert traffic.state.get_object(traffic.run_id, name) == content.deflate()
    assert traffic.pull() == [message.object_id]
    traffic.restart()
    assert traffic.pull() == []


def test_messages_keep_their_order(traffic: Traffic) -> None:
    sent = [traffic.send(number).object_id for number in range(5)]
    traffic.restart()
    assert [traffic.pull()[0] for _ in sent] == sent


def test_a_message_whose_objects_were_on_their_way_is_completed_by_the_session_of_before(traffic: Traffic) -> None:
    message = traffic.message()
    session, objects = traffic.push(message)
    (first, content), *others = objects.items()
    assert traffic.state.store_object(traffic.run_id, session, first, content)
    traffic.restart()
    assert traffic.state.missing(message.object_id) == {name for name, _ in others}
    for name, content in objects.items():  # the first again, too: its answer was lost
        assert traffic.state.store_object(traffic.run_id, session, name, content)
    assert traffic.state.missing(message.object_id) == set()


def test_a_push_that_is_repeated_adds_nothing(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.restart()
    _, missing = traffic.push(message)
    assert missing == {}
    assert traffic.state.num_message_ins() == 1


def test_a_message_of_which_only_the_head_was_stored_is_left_to_be_pushed_again(traffic: Traffic) -> None:
    message = traffic.message()
    message.metadata.__dict__["_message_id"] = message.object_id
    traffic.state.store_message_ins(remove_content_from_message(message))
    traffic.restart()
    assert traffic.pull() == []
    traffic.push(message)
    assert traffic.state.num_message_ins() == 1


def test_an_object_that_is_damaged_counts_as_missing(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.state.spool.write("object", message.object_id, b"torn")
    traffic.restart()
    assert traffic.state.missing(message.object_id) == {message.object_id}


def test_a_reply_is_given_again_until_it_is_confirmed(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.pull()
    traffic.state.object_store.delete(message.object_id)  # the node has confirmed
    reply = traffic.reply(message)
    traffic.restart()
    for _ in range(2):  # the answer to the first is lost with the SuperLink
        assert traffic.pull_replies(message) == [reply.object_id]
        traffic.restart()
    assert traffic.pull_replies(message) == [reply.object_id]
    traffic.state.object_store.delete(reply.object_id)  # the ServerApp has confirmed
    assert traffic.files() == 0


def test_a_run_that_has_ended_leaves_no_files(traffic: Traffic) -> None:
    answered, given, waiting = (traffic.send(number) for number in range(3))
    assert [traffic.pull(), traffic.pull()] == [[answered.object_id], [given.object_id]]
    traffic.reply(answered)
    traffic.pull_replies(answered)
    assert waiting.object_id in traffic.state.message_ins_store
    traffic.state.cleanup_run(traffic.run_id)
    assert traffic.files() == 0


def test_a_message_that_was_given_to_a_node_and_not_confirmed_is_given_again(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.pull()
    assert [lost.metadata.message_id for lost in traffic.state.unanswered(traffic.node_id)] == [message.object_id]
    assert traffic.state.redeliver(message.object_id)
    assert traffic.pull() == [message.object_id]


def test_a_message_that_a_node_never_manages_to_take_is_not_given_for_ever(traffic: Traffic) -> None:
    message = traffic.send()
    assert traffic.pull() == [message.object_id]
    times = 0
    while traffic.state.redeliver(message.object_id):
        times += 1
        assert traffic.pull() == [message.object_id]
    assert times == MOST_GIVEN


def test_a_message_that_a_node_has_confirmed_cannot_be_given_again(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.pull()
    traffic.state.object_store.delete(message.object_id)
    traffic.restart()
    assert [lost.metadata.message_id for lost in traffic.state.unanswered(traffic.node_id)] == [message.object_id]
    assert not traffic.state.redeliver(message.object_id)


def test_a_message_whose_reply_is_complete_is_answered(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.pull()
    traffic.reply(message)
    assert traffic.state.unanswered(traffic.node_id) == []


def test_a_reply_that_broke_off_is_dropped_for_another(traffic: Traffic) -> None:
    message = traffic.send()
    traffic.pull()
    traffic.push(Message(RecordDict({"config": ConfigRecord({"number": 100})}), reply_to=message))
    assert len(traffic.state.unanswered(traffic.node_id)) == 1
    traffic.state.drop_reply(message.object_id)
    assert traffic.state.num_message_res() == 0
    traffic.reply(message)
    assert traffic.state.unanswered(traffic.node_id) == []


def test_a_run_whose_server_app_is_gone_with_its_container_has_failed_with_the_reason(traffic: Traffic) -> None:
    (task,) = traffic.state.get_tasks(statuses=[Status.PENDING])
    traffic.state.claim_task(task.task_id)
    traffic.state.activate_task(task.task_id)
    traffic.state.fail_running_tasks("the reason")
    status = traffic.state.get_run_status({traffic.run_id})[traffic.run_id]
    assert (status.status, status.sub_status, status.details) == ("finished", "failed", "the reason")


class Asked:
    """Counts how often it is asked."""

    def __init__(self, answer: Any = "answer") -> None:
        self.times = 0
        self.answer = answer

    def __call__(self) -> Any:
        self.times += 1
        return self.answer


def test_an_answer_holds_until_something_changes() -> None:
    memo, asked = Memo(), Asked()
    assert [memo.get("key", asked), memo.get("key", asked), asked.times] == ["answer", "answer", 1]
    memo.clear()
    memo.get("key", asked)
    assert asked.times == 2


def test_an_answer_holds_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bouquet.flower.link_state.FRESH", -1)
    memo, asked = Memo(), Asked()
    memo.get("key", asked)
    memo.get("key", asked)
    assert asked.times == 2


def test_no_answer_is_asked_for_again() -> None:
    memo, asked = Memo(), Asked(None)
    memo.get("key", asked)
    memo.get("key", asked)
    assert asked.times == 2


def test_an_answer_that_changed_while_it_was_asked_for_is_not_kept() -> None:
    memo, asked = Memo(), Asked()

    def overtaken() -> str:
        memo.clear()
        return "stale"

    assert memo.get("key", overtaken) == "stale"
    assert memo.get("key", asked) == "answer"


def test_nodes_outlive_the_superlink(tmp_path: Path) -> None:
    first = open_state(tmp_path / "superlink.db")
    node_id = first.create_node("owner", "name", b"key", 30)
    second = open_state(tmp_path / "superlink.db")
    assert second.get_node_id_by_public_key(b"key") == node_id
    assert set(second.nodes) == {node_id}


def test_a_node_that_was_removed_is_unknown_at_once(state: LinkState) -> None:
    node_id = state.create_node("owner", "name", b"key", 30)
    state.activate_node(node_id, 30)
    assert state.get_node_id_by_public_key(b"key") == node_id
    state.delete_node("owner", node_id)
    assert state.get_node_id_by_public_key(b"key") is None


def test_a_token_is_worth_nothing_once_its_task_has_ended(state: LinkState) -> None:
    task_id = state.create_task("flwr-serverapp", run_id=1, fab_hash="0")
    assert task_id is not None
    token = state.claim_task(task_id)
    assert token is not None
    task = state.get_task_by_token(token)
    assert task is not None
    assert task.status.status == Status.STARTING
    assert state.finish_task(task_id, "failed", "for the test")
    assert state.get_task_by_token(token) is None


@pytest.mark.parametrize(
    ("source", "name"),
    [(InMemoryLinkState, name) for name in MESSAGES] + [(InMemoryCoreState, name) for name in OBJECTS],
)
def test_a_borrowed_method_finds_all_that_it_uses(state: LinkState, source: type, name: str) -> None:
    method = getattr(LinkState, name)
    assert method is getattr(source, name) or method.__module__ == LinkState.__module__, "neither borrowed nor extended"
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(source, name))))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    missing = {attribute for attribute in used if not hasattr(state, attribute)}
    assert not missing, f"{source.__name__}.{name} now uses {missing}: mend database.py: LinkState"


def test_the_database_sees_no_message_and_no_object(state: LinkState) -> None:
    session = state.start_session(1)
    assert state.store_object(1, session, "0" * 64, b"") is False
    assert state.query("SELECT count(*) AS n FROM object_push_sessions") == [{"n": 0}]
