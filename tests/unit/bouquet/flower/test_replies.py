"""That a node replies to the message that it has, whatever became of the one before."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flwr.app import Message

from bouquet.flower import supernode_main
from bouquet.flower.messages import with_message_id
from tests.unit.bouquet.flower.fakes import after
from tests.unit.bouquet.flower.node_fakes import Node, deflated, error_to, message, reply_to


def answered(reply: Message) -> str:
    return reply.metadata.reply_to_message_id


def test_a_reply_is_sent_with_all_its_objects() -> None:
    received = message(1)
    node, reply = Node(received), reply_to(received)
    after(0.1, lambda: node.hand_over(reply))
    node.loop.turn()
    assert [answered(sent) for sent in node.client.sent] == [received.metadata.message_id]
    assert node.client.pushed == set(deflated(with_message_id(reply)))
    assert node.replies() == []


def test_a_reply_is_sent_only_once_its_last_object_is_here() -> None:
    received = message(1)
    node = Node(received)
    kept = node.hand_over(reply_to(received), without=2)
    here: list[bytes | None] = []
    node.client.on_send = lambda reply: here.extend(node.objects.get(object_id) for object_id, _ in kept)
    after(0.1, lambda: node.put(kept[:1]))
    after(0.2, lambda: node.put(kept[1:]))
    node.loop.turn()
    assert here == [content for _, content in kept]


def test_a_reply_to_a_message_before_is_dropped() -> None:
    old, new = message(1), message(2)
    node = Node(new)
    node.hand_over(reply_to(old))
    late = node.hand_over(error_to(old), without=1)
    assert len(late) == 1
    after(0.1, lambda: node.hand_over(reply_to(new)))
    node.loop.turn()
    assert [answered(sent) for sent in node.client.sent] == [new.metadata.message_id]
    assert node.replies() == []
    assert node.objects.get(late[0][0]) is None


def _refuse(reply: Message) -> None:
    raise RuntimeError("the run has ended")


@pytest.mark.parametrize("on_send", [lambda reply: None, _refuse], ids=["not accepted", "error"])
def test_a_reply_that_is_refused_is_forgotten_only_once_it_is_all_there(on_send: Callable[[Message], None]) -> None:
    received = message(1)
    node = Node(received)
    node.client.accepts, node.client.on_send = False, on_send
    kept = node.hand_over(reply_to(received), without=1)
    handed_over: list[bool] = []

    def finish() -> None:
        node.put(kept)  # raises if the reply was forgotten
        handed_over.append(True)

    after(0.1, finish)
    node.loop.turn()
    assert handed_over == [True]
    assert len(node.client.sent) == 1
    assert node.replies() == []
    assert node.objects.get(kept[0][0]) is None


def test_an_incomplete_reply_of_a_process_that_died_is_replaced_by_the_executors_error_reply() -> None:
    received = message(1)
    node = Node(received)
    kept = node.hand_over(reply_to(received), without=1)
    after(0.1, lambda: node.hand_over(error_to(received)))
    node.loop.turn()
    assert [sent.has_error() for sent in node.client.sent] == [True]
    assert node.replies() == []
    assert node.objects.get(kept[0][0]) is None


def test_a_reply_that_is_never_all_there_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernode_main, "REPLY_CHECK_SECONDS", 0.1)
    received = message(1)
    node = Node(received)
    node.hand_over(reply_to(received), without=1)
    monkeypatch.setattr(node.session, "is_watched", lambda run_id: True)  # the run goes on

    def claim_and_fall_silent() -> None:
        (task,) = node.state.get_tasks()
        assert node.state.claim_task(task.task_id)
        assert node.state.activate_task(task.task_id)
        node.state.get_messages(run_ids=[1], is_reply=False)  # as the ClientApp process pulls it
        node.state.task_token_store[task.task_id].active_until = datetime.now(UTC) - timedelta(seconds=1)

    after(0.2, claim_and_fall_silent)
    node.loop.turn()
    assert [sent.error.reason for sent in node.client.sent] == ["ClientApp stopped responding."]
    assert node.replies() == []
