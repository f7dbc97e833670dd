from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.common.constant import PUBLIC_KEY_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import FlowerError

from bouquet.flower import liveness as presence
from bouquet.flower import superlink_main as superlink
from bouquet.flower.superlink_main import LOGS, Fleet, SuperLinkEvents
from tests.unit.bouquet.flower.fakes import Caller, Traffic


def test_a_reply_wakes_the_server_app_and_not_those_who_wait_for_the_runs_end() -> None:
    board = SuperLinkEvents()
    board.mail.announce(superlink._replies(1), "message", ())
    assert board.bell.count(superlink._replies(1)) == 1
    assert board.bell.count(superlink._end(1)) == 0


def test_the_end_of_a_run_releases_all_who_wait_for_anything_of_it() -> None:
    board = SuperLinkEvents()
    board.mail.announce(superlink._replies(1), "message", {"object"})
    board.end_run(1)
    assert [board.bell.count(key) for key in (superlink._replies(1), superlink._end(1), LOGS)] == [1, 1, 1]
    assert board.mail.incomplete(superlink._replies(1)) == set()


class Superlink:
    """The Fleet API of a SuperLink with one run and one node, which is online and has the key `b"key"`."""

    def __init__(self, folder: Path) -> None:
        self.traffic = Traffic(folder / "superlink.db")
        self.node_id = self.traffic.node_id
        self.board = Fleet.board = SuperLinkEvents()
        objects = SimpleNamespace(store=lambda: self.traffic.state.object_store)
        state: Any = SimpleNamespace(state=lambda: self.traffic.state)
        self.fleet = Fleet(state, objects, enable_supernode_auth=True)  # type: ignore[arg-type]

    def pull(self) -> list[str]:
        """Ask for a message, as the node does when it has none in hand."""
        answer = self.fleet.PullMessages(PullMessagesRequest(node=Node(node_id=self.node_id)), Caller())
        return [message.metadata.message_id for message in answer.messages_list]

    def activate(self, signed_by: bytes) -> int:
        """Start another process with the node's key."""
        request = ActivateNodeRequest(public_key=b"key", heartbeat_interval=30)
        metadata: Any = ((PUBLIC_KEY_HEADER, signed_by),)
        return int(self.fleet.ActivateNode(request, Caller(metadata)).node_id)

    def replies(self, message_id: str) -> list[Any]:
        """The replies to a message."""
        return list(self.traffic.state.get_message_res({message_id}))


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Superlink:
    monkeypatch.setattr(superlink, "NODE_HOLD", 0.1)
    monkeypatch.setattr(presence, "CHALLENGE", 0.1)
    return Superlink(tmp_path)


def test_a_message_that_was_lost_on_its_way_to_the_node_is_given_to_it_again(link: Superlink) -> None:
    message = link.traffic.send()
    assert link.pull() == link.pull() == [message.object_id]


def test_a_message_that_the_node_had_confirmed_and_lost_is_answered_for_with_its_name(link: Superlink) -> None:
    message = link.traffic.send()
    assert link.pull() == [message.object_id]
    link.traffic.state.object_store.delete(message.object_id)  # as a confirmation does
    assert link.pull() == []
    (reply,) = link.replies(message.object_id)
    assert reply.metadata.src_node_id == link.node_id
    assert reply.error.reason.startswith(f"SuperNode {link.node_id} was restarted, or lost its connection")
    key = superlink._replies(link.traffic.run_id)
    assert link.board.mail.complete(key) == {message.object_id}


def test_a_message_that_the_node_has_answered_is_left_alone(link: Superlink) -> None:
    message = link.traffic.send()
    link.pull()
    reply = link.traffic.reply(message)
    assert link.pull() == []
    assert [found.metadata.message_id for found in link.replies(message.object_id)] == [reply.object_id]


def test_what_a_node_lost_of_a_run_that_has_ended_is_forgotten(link: Superlink) -> None:
    message = link.traffic.send()
    link.pull()
    link.traffic.state.object_store.delete(message.object_id)
    (task,) = link.traffic.state.get_tasks()
    link.traffic.state.finish_task(task.task_id, "failed", "")
    link.pull()
    assert link.traffic.state.num_message_ins() == 0


def test_a_node_whose_process_has_gone_is_let_in_while_it_still_counts_as_online(link: Superlink) -> None:
    assert link.activate(signed_by=b"key") == link.node_id


def test_a_node_whose_process_lives_is_refused_to_another(link: Superlink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link.board.presence, "answers", lambda node_id: True)
    with pytest.raises(FlowerError):
        link.activate(signed_by=b"key")


def test_a_node_is_not_ousted_by_who_does_not_hold_its_key(link: Superlink) -> None:
    with pytest.raises(FlowerError):
        link.activate(signed_by=b"another")


def test_what_a_superlink_left_is_announced_by_the_next(link: Superlink) -> None:
    given, answered = link.traffic.send(1), link.traffic.send(2)
    assert [link.traffic.pull(), link.traffic.pull()] == [[given.object_id], [answered.object_id]]
    link.traffic.reply(answered)
    waiting = link.traffic.send(3)
    link.traffic.restart()
    board = SuperLinkEvents()
    board.restore(link.traffic.state)
    assert board.mail.complete(superlink._node(link.node_id)) == {waiting.object_id}
    assert board.mail.complete(superlink._replies(link.traffic.run_id)) == {answered.object_id}
