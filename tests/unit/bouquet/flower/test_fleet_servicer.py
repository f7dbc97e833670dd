from pathlib import Path
from typing import Any

import pytest
from flwr.common.constant import PUBLIC_KEY_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import FlowerError

from bouquet.flower import fleet_servicer, liveness
from bouquet.flower.fleet_servicer import EventFleetServicer
from bouquet.flower.superlink_events import SuperLinkEvents, replies_key
from tests.unit.bouquet.flower.fakes import Caller, Traffic


class Fleet:
    """The Fleet API of a SuperLink with one run and one node, which is online and has the key `b"key"`."""

    def __init__(self, folder: Path) -> None:
        self.traffic = Traffic(folder / "superlink.db")
        self.node_id = self.traffic.node_id
        self.events = SuperLinkEvents()
        self.servicer = EventFleetServicer(
            self.traffic.states, self.traffic.objects, enable_supernode_auth=True, events=self.events, run_dir=folder
        )

    def pull(self) -> list[str]:
        """Ask for a message, as a node does when it works on none."""
        answer = self.servicer.PullMessages(PullMessagesRequest(node=Node(node_id=self.node_id)), Caller())
        return [message.metadata.message_id for message in answer.messages_list]

    def activate(self, signed_by: bytes) -> int:
        """Start another process with the node's key."""
        request = ActivateNodeRequest(public_key=b"key", heartbeat_interval=30)
        metadata: Any = ((PUBLIC_KEY_HEADER, signed_by),)
        return int(self.servicer.ActivateNode(request, Caller(metadata)).node_id)

    def replies(self, message_id: str) -> list[Any]:
        """The replies to a message."""
        return list(self.traffic.state.get_message_res({message_id}))


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(fleet_servicer, "NODE_HOLD_SECONDS", 0.1)
    monkeypatch.setattr(liveness, "CHALLENGE_SECONDS", 0.1)
    return Fleet(tmp_path)


def test_a_message_that_was_lost_on_its_way_to_the_node_is_redelivered(fleet: Fleet) -> None:
    message = fleet.traffic.send()
    assert fleet.pull() == fleet.pull() == [message.object_id]


def test_a_message_that_the_node_has_confirmed_and_lost_is_answered_with_an_error_from_the_node(fleet: Fleet) -> None:
    message = fleet.traffic.send()
    assert fleet.pull() == [message.object_id]
    fleet.traffic.state.object_store.delete(message.object_id)  # as a confirmation does
    assert fleet.pull() == []
    (reply,) = fleet.replies(message.object_id)
    assert reply.metadata.src_node_id == fleet.node_id
    assert reply.metadata.message_id == reply.object_id
    assert reply.error.reason.startswith(f"SuperNode {fleet.node_id} was restarted, or lost its connection")
    key = replies_key(fleet.traffic.run_id)
    assert fleet.events.deliveries.complete(key) == {message.object_id}


def test_a_message_that_the_node_has_answered_is_left_alone(fleet: Fleet) -> None:
    message = fleet.traffic.send()
    fleet.pull()
    reply = fleet.traffic.reply(message)
    assert fleet.pull() == []
    assert [found.metadata.message_id for found in fleet.replies(message.object_id)] == [reply.object_id]


def test_a_lost_message_of_a_run_that_has_ended_is_deleted(fleet: Fleet) -> None:
    message = fleet.traffic.send()
    fleet.pull()
    fleet.traffic.state.object_store.delete(message.object_id)
    (task,) = fleet.traffic.state.get_tasks()
    fleet.traffic.state.finish_task(task.task_id, "failed", "")
    fleet.pull()
    assert fleet.traffic.state.num_message_ins() == 0


def test_a_node_whose_process_is_gone_is_admitted_while_it_still_counts_as_online(fleet: Fleet) -> None:
    assert fleet.activate(signed_by=b"key") == fleet.node_id


def test_a_second_process_of_a_node_that_is_alive_is_refused(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet.events.liveness, "answers", lambda node_id: True)
    with pytest.raises(FlowerError):
        fleet.activate(signed_by=b"key")


def test_a_node_is_not_replaced_by_a_process_that_does_not_hold_its_key(fleet: Fleet) -> None:
    with pytest.raises(FlowerError):
        fleet.activate(signed_by=b"another")
