import time
from pathlib import Path
from typing import Any

import pytest
from flwr.common.constant import NOOP_FLWR_AID, PUBLIC_KEY_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.error import FlowerError

from bouquet.contract.keys import derive_key, public_key
from bouquet.contract.partitions import (
    NUM_PARTITIONS_HEADER,
    PARTITION_ID_HEADER,
    PINNED_HEADER,
    SLOT_HEADER,
    read_partition_ids,
    write_num_partitions,
)
from bouquet.flower import fleet_servicer, liveness
from bouquet.flower.fleet_servicer import EventFleetServicer
from bouquet.flower.holding import HeldCalls
from bouquet.flower.superlink_events import SuperLinkEvents, node_key, replies_key
from bouquet.settings.env import MAX_SUPERNODES
from bouquet.superlink.node_records import NodeRecords
from bouquet.superlink.partition_map import PartitionMap
from tests.unit.bouquet.flower.fakes import Caller, Traffic, after

SEED = b"a secret of at least 32 characters"


class Fleet:
    """The Fleet API of a SuperLink with one run and one node, which is online and has the key `b"key"`."""

    def __init__(self, folder: Path) -> None:
        self.traffic = Traffic(folder / "superlink.db")
        self.node_id = self.traffic.node_id
        self.events = SuperLinkEvents()
        self.records = NodeRecords(folder)
        self.servicer = EventFleetServicer(
            self.traffic.states,
            self.traffic.objects,
            enable_supernode_auth=True,
            events=self.events,
            run_dir=folder,
            partitions=PartitionMap(folder, folder, expected=3),
            records=self.records,
            seed=SEED,
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


@pytest.mark.parametrize("call", ["pull", "heartbeat", "activate"])
def test_the_partition_that_a_node_reports_is_recorded_at_any_call(fleet: Fleet, call: str, tmp_path: Path) -> None:
    caller = Caller(((PARTITION_ID_HEADER, "4"), (PUBLIC_KEY_HEADER, b"key")))
    node = Node(node_id=fleet.node_id)
    if call == "pull":
        fleet.servicer.PullMessages(PullMessagesRequest(node=node), caller)
    elif call == "heartbeat":
        fleet.servicer.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=node, heartbeat_interval=30), caller)
    else:
        fleet.servicer.ActivateNode(ActivateNodeRequest(public_key=b"key", heartbeat_interval=30), caller)
    assert read_partition_ids(tmp_path) == {fleet.node_id: 4}


@pytest.mark.parametrize("value", ["", "-1", "four", "\u0664"])
def test_a_partition_that_is_no_number_is_ignored(fleet: Fleet, value: str, tmp_path: Path) -> None:
    caller = Caller(((PARTITION_ID_HEADER, value),))
    fleet.servicer.PullMessages(PullMessagesRequest(node=Node(node_id=fleet.node_id)), caller)
    assert read_partition_ids(tmp_path) == {}


def test_a_process_without_the_nodes_key_cannot_report_a_partition_for_it(fleet: Fleet, tmp_path: Path) -> None:
    caller = Caller(((PARTITION_ID_HEADER, "4"), (PUBLIC_KEY_HEADER, b"another")))
    with pytest.raises(FlowerError):
        fleet.servicer.ActivateNode(ActivateNodeRequest(public_key=b"key", heartbeat_interval=30), caller)
    assert read_partition_ids(tmp_path) == {}


def test_a_record_that_cannot_be_written_does_not_disturb_the_node(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bouquet.contract.partitions.write_atomically", full)
    caller = Caller(((PARTITION_ID_HEADER, "4"),))
    request = SendNodeHeartbeatRequest(node=Node(node_id=fleet.node_id), heartbeat_interval=30)
    assert fleet.servicer.SendNodeHeartbeat(request, caller).success


def test_a_run_has_its_number_of_partitions_in_the_metadata_once_it_is_known(fleet: Fleet, tmp_path: Path) -> None:
    request = GetRunRequest(node=Node(node_id=fleet.node_id), run_id=fleet.traffic.run_id)
    before, then = Caller(), Caller()
    (task,) = fleet.traffic.state.get_tasks()
    fleet.traffic.state.claim_task(task.task_id)
    fleet.traffic.state.activate_task(task.task_id)
    fleet.servicer.GetRun(request, before)
    write_num_partitions(tmp_path, fleet.traffic.run_id, 10)
    fleet.servicer.GetRun(request, then)
    assert (before.trailing, then.trailing) == ((), ((NUM_PARTITIONS_HEADER, "10"),))


def slot_of(number: int) -> tuple[bytes, Caller]:
    """The public key of a slot, and a call by its node."""
    key = public_key(derive_key(SEED, number))
    return key, Caller(((SLOT_HEADER, str(number)), (PUBLIC_KEY_HEADER, key)))


def test_a_slot_of_the_cluster_is_registered_by_its_first_call_and_told_its_partition(
    fleet: Fleet, tmp_path: Path
) -> None:
    key, caller = slot_of(2)
    node_id = fleet.servicer.ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=30), caller).node_id
    assert dict(caller.trailing) == {PARTITION_ID_HEADER: "2", NUM_PARTITIONS_HEADER: "3"}
    assert read_partition_ids(tmp_path) == {node_id: 2}
    pull = Caller(caller.metadata)
    fleet.servicer.PullMessages(PullMessagesRequest(node=Node(node_id=node_id)), pull)
    assert dict(pull.trailing)[PARTITION_ID_HEADER] == "2"


@pytest.mark.parametrize("slot", ["3", "joined", ""])
def test_a_key_that_the_seed_does_not_yield_for_the_slot_is_not_registered(fleet: Fleet, slot: str) -> None:
    key, _ = slot_of(2)
    caller = Caller(((SLOT_HEADER, slot), (PUBLIC_KEY_HEADER, key)))
    with pytest.raises(FlowerError, match="No SuperNode found with the given public key"):
        fleet.servicer.ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=30), caller)


def test_a_slot_whose_node_was_removed_is_not_registered_again(fleet: Fleet) -> None:
    key, caller = slot_of(2)
    request = ActivateNodeRequest(public_key=key, heartbeat_interval=30)
    node_id = fleet.servicer.ActivateNode(request, caller).node_id
    fleet.traffic.state.delete_node(NOOP_FLWR_AID, node_id)
    with pytest.raises(FlowerError, match="No SuperNode found with the given public key"):
        fleet.servicer.ActivateNode(request, caller)


def test_a_node_for_which_no_partition_is_free_is_told_to_try_again(fleet: Fleet) -> None:
    key, caller = slot_of(1)
    fleet.servicer.ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=30), caller)
    said = ((SLOT_HEADER, "joined"), (PINNED_HEADER, "1"), (PARTITION_ID_HEADER, "1"), (PUBLIC_KEY_HEADER, b"key"))
    with pytest.raises(ConnectionAbortedError, match="partition-id 1 .* is held by another SuperNode"):
        fleet.servicer.ActivateNode(ActivateNodeRequest(public_key=b"key", heartbeat_interval=30), Caller(said))


def test_a_node_that_is_removed_while_its_call_is_held_is_refused_and_gets_no_message(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_servicer, "NODE_HOLD_SECONDS", 30.0)

    def remove() -> None:
        fleet.traffic.state.delete_node("owner", fleet.node_id)
        fleet.events.notify_removed(fleet.traffic.state.messages, fleet.node_id)

    after(0.2, remove)
    started = time.monotonic()
    with pytest.raises(ConnectionAbortedError, match="The node was removed"):
        fleet.pull()
    assert time.monotonic() - started < 10
    with pytest.raises(FlowerError):
        fleet.activate(signed_by=b"key")


def test_a_call_counts_as_a_heartbeat_where_the_last_one_is_overdue(fleet: Fleet) -> None:
    fleet.activate(b"key")
    state = fleet.traffic.state
    before = state.get_node_info(node_ids=[fleet.node_id])[0].online_until
    fleet.pull()
    assert state.get_node_info(node_ids=[fleet.node_id])[0].online_until == before
    fleet.servicer._heartbeats[fleet.node_id] -= 31
    fleet.pull()
    assert state.get_node_info(node_ids=[fleet.node_id])[0].online_until > before


def test_a_call_does_not_bring_a_deactivated_node_back(fleet: Fleet) -> None:
    fleet.activate(b"key")
    fleet.servicer._heartbeats[fleet.node_id] -= 31
    fleet.servicer.DeactivateNode(DeactivateNodeRequest(node_id=fleet.node_id), Caller())
    fleet.pull()
    assert fleet.traffic.state.get_node_info(node_ids=[fleet.node_id])[0].status == "offline"


def test_a_message_whose_objects_are_on_their_way_is_not_delivered_when_the_hold_ends(fleet: Fleet) -> None:
    message = fleet.traffic.message()
    session, objects = fleet.traffic.push(message)
    key = node_key(fleet.node_id)
    fleet.events.deliveries.announce(key, message.object_id, objects)
    assert fleet.pull() == []
    for name, content in objects.items():
        fleet.traffic.state.store_object(fleet.traffic.run_id, session, name, content)
        fleet.events.deliveries.object_arrived(name)
    assert fleet.pull() == [message.object_id]


def test_a_call_is_answered_at_once_while_too_many_are_held(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_servicer, "NODE_HOLD_SECONDS", 20)
    fleet.servicer._held = HeldCalls(0)
    start = time.monotonic()
    assert fleet.pull() == []
    assert time.monotonic() - start < 5


def test_a_held_call_that_ends_makes_room_for_another() -> None:
    held = HeldCalls(1)
    with held.seconds(20) as first, held.seconds(20) as second:
        assert (first, second) == (20, 0)
    with held.seconds(20) as third:
        assert third == 20


def test_each_node_can_have_a_call_for_a_message_and_one_for_the_end_of_a_run_held() -> None:
    assert 2 * MAX_SUPERNODES <= fleet_servicer.MAX_HELD_CALLS <= fleet_servicer.MAX_CALLS - MAX_SUPERNODES
