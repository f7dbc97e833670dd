"""The SuperNode's connection, against a Fleet API in this process."""

# ruff: noqa: N802  the methods have the names of the calls

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto import fab_pb2, fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
from flwr.proto.fleet_pb2_grpc import FleetServicer, add_FleetServicer_to_server
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.start_client_internal import _make_fleet_connection_retry_invoker

from bouquet.contract.partitions import NUM_PARTITIONS_HEADER, PARTITION_ID_HEADER
from bouquet.flower.channels import with_quick_retries
from bouquet.flower.fleet_client import FleetClient, SuperLinkUnreachableError
from bouquet.flower.partition_interceptor import Partition
from tests.unit.bouquet.flower.node_fakes import message, reply_to

NODE_ID = 42


class FakeFleet(FleetServicer):
    """A Fleet API that notes what it is asked, and refuses what it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.keys: set[bytes] = set()
        self.refusals: dict[str, grpc.StatusCode] = {}
        self.messages = [message(1)]
        self.replies: list[Any] = []
        self.objects: dict[str, bytes] = {}
        self.beat = threading.Event()
        self.partition_ids: set[str | None] = set()
        self.num_partitions: int | None = None

    def _note(self, call: str, context: grpc.ServicerContext) -> None:
        self.calls.append(call)
        metadata = dict(context.invocation_metadata())
        assert metadata[SIGNATURE_HEADER]
        self.keys.add(metadata[PUBLIC_KEY_HEADER])
        self.partition_ids.add(metadata.get(PARTITION_ID_HEADER))
        if call in self.refusals:
            context.abort(self.refusals[call], "refused by the test")

    def RegisterNode(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("RegisterNode", context)
        return fleet_pb2.RegisterNodeFleetResponse()

    def ActivateNode(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("ActivateNode", context)
        return fleet_pb2.ActivateNodeResponse(node_id=NODE_ID)

    def DeactivateNode(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("DeactivateNode", context)
        assert request.node_id == NODE_ID
        return fleet_pb2.DeactivateNodeResponse()

    def UnregisterNode(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("UnregisterNode", context)
        return fleet_pb2.UnregisterNodeFleetResponse()

    def SendNodeHeartbeat(self, request: Any, context: grpc.ServicerContext) -> Any:
        assert request.node.node_id == NODE_ID
        self.beat.set()
        return heartbeat_pb2.SendNodeHeartbeatResponse(success=True)

    def PullMessages(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("PullMessages", context)
        given = [self.messages.pop()] if self.messages else []
        return fleet_pb2.PullMessagesResponse(
            messages_list=[message_to_proto(one) for one in given],
            message_object_trees=[get_object_tree(one) for one in given],
        )

    def PushMessages(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("PushMessages", context)
        self.replies += request.messages_list
        return fleet_pb2.PushMessagesResponse(objects_to_push=["a"], session_id="session")

    def PushObject(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("PushObject", context)
        self.objects[request.object_id] = request.object_content
        return message_pb2.PushObjectResponse(stored=True)

    def PullObject(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("PullObject", context)
        return message_pb2.PullObjectResponse(object_found=True, object_available=True, object_content=b"content")

    def ConfirmMessageReceived(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("ConfirmMessageReceived", context)
        return message_pb2.ConfirmMessageReceivedResponse()

    def GetRun(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("GetRun", context)
        if self.num_partitions is not None:
            context.set_trailing_metadata(((NUM_PARTITIONS_HEADER, str(self.num_partitions)),))
        return run_pb2.GetRunResponse(run=run_pb2.Run(run_id=request.run_id))

    def GetFab(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("GetFab", context)
        return fab_pb2.GetFabResponse(fab=fab_pb2.Fab(hash_str=request.hash_str, content=b"fab"))


@pytest.fixture
def fleet() -> Iterator[tuple[FakeFleet, str]]:
    servicer = FakeFleet()
    server = grpc.server(ThreadPoolExecutor(8))
    add_FleetServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None)


def client(address: str, **options: Any) -> FleetClient:
    invoker = with_quick_retries(_make_fleet_connection_retry_invoker(max_wait_time=1))
    return FleetClient(address, None, options.pop("keys", None), invoker, **options)


def test_a_node_is_active_within_the_block_and_says_so(fleet: tuple[FakeFleet, str]) -> None:
    servicer, address = fleet
    online: list[int] = []
    with client(address, on_online=online.append) as connection:
        assert connection.node_id == NODE_ID
        assert online[0] == NODE_ID
        assert servicer.beat.wait(5)
        assert servicer.calls == ["RegisterNode", "ActivateNode"]
    assert servicer.calls[2:] == ["DeactivateNode", "UnregisterNode"]


def test_a_node_with_keys_does_not_register_itself(fleet: tuple[FakeFleet, str]) -> None:
    servicer, address = fleet
    keys = generate_key_pairs()
    with client(address, keys=keys):
        pass
    assert servicer.calls == ["ActivateNode", "DeactivateNode"]
    assert servicer.keys == {public_key_to_bytes(keys[1])}


def test_messages_and_objects_go_both_ways(fleet: tuple[FakeFleet, str]) -> None:
    servicer, address = fleet
    sent = servicer.messages[0]
    with client(address) as connection:
        received = connection.receive()
        assert received is not None
        assert received[0].metadata.message_id == sent.metadata.message_id == received[1].object_id
        assert connection.receive() is None
        assert connection.get_run(5).run_id == 5
        assert connection.get_fab("hash", 5).content == b"fab"
        assert connection.pull_object(1, "x") == b"content"
        connection.confirm_message_received(1, sent.metadata.message_id)
        reply = reply_to(sent)
        assert connection.send(reply, get_object_tree(reply), 1.5) == ({"a"}, "session")
        connection.push_object(1, "session", "a", b"part")
    assert [one.metadata.reply_to_message_id for one in servicer.replies] == [sent.metadata.message_id]
    assert not servicer.replies[0].content.ListFields()
    assert servicer.objects == {"a": b"part"}


def test_a_node_says_in_each_call_which_partition_it_holds(fleet: tuple[FakeFleet, str]) -> None:
    servicer, address = fleet
    with client(address) as connection:
        connection.receive()
    assert servicer.partition_ids == {None}
    servicer.partition_ids.clear()
    with client(address, partition=Partition(4)) as connection:
        connection.receive()
    assert servicer.partition_ids == {"4"}


@pytest.mark.parametrize("num_partitions", [None, 12])
def test_a_run_that_a_node_joins_has_its_number_of_partitions_if_the_superlink_says_it(
    fleet: tuple[FakeFleet, str], num_partitions: int | None
) -> None:
    servicer, address = fleet
    servicer.num_partitions = num_partitions
    with client(address) as connection:
        run, found = connection.join_run(5)
    assert (run.run_id, found) == (5, num_partitions)


def test_a_superlink_that_cannot_be_reached_is_given_up_after_the_time_that_is_set() -> None:
    with pytest.raises(SuperLinkUnreachableError, match="UNAVAILABLE"), client("127.0.0.1:1"):
        pass


@pytest.mark.parametrize("code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED])
def test_a_node_that_is_refused_gives_up_at_once(fleet: tuple[FakeFleet, str], code: grpc.StatusCode) -> None:
    servicer, address = fleet
    servicer.refusals["ActivateNode"] = code
    with pytest.raises(SuperLinkUnreachableError), client(address):
        pass
    assert servicer.calls == ["RegisterNode", "ActivateNode"]


def test_a_call_that_fails_for_good_gives_up_and_deactivates_the_node(fleet: tuple[FakeFleet, str]) -> None:
    servicer, address = fleet
    servicer.refusals["PullMessages"] = grpc.StatusCode.INTERNAL
    with pytest.raises(SuperLinkUnreachableError, match="INTERNAL: refused by the test"), client(address) as connection:
        connection.receive()
    assert servicer.calls[2:] == ["PullMessages", "DeactivateNode", "UnregisterNode"]


def test_a_run_that_has_ended_is_told_as_flower_tells_it(fleet: tuple[FakeFleet, str]) -> None:
    servicer, address = fleet
    servicer.refusals["GetRun"] = grpc.StatusCode.PERMISSION_DENIED
    with client(address) as connection, pytest.raises(RunNotRunningException):
        connection.get_run(1)


def test_a_key_that_is_no_longer_accepted_ends_the_process_as_sigint_does(fleet: tuple[FakeFleet, str]) -> None:
    servicer, address = fleet
    servicer.refusals["PullMessages"] = grpc.StatusCode.UNAUTHENTICATED

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), client(address) as connection:
            connection.receive()
    finally:
        signal.signal(signal.SIGINT, before)


def test_leaving_does_not_wait_for_a_superlink_that_is_gone(fleet: tuple[FakeFleet, str]) -> None:
    servicer, address = fleet
    servicer.refusals["DeactivateNode"] = grpc.StatusCode.UNAVAILABLE
    with client(address):
        pass
    assert servicer.calls.count("DeactivateNode") == 1
