"""What a SuperNode says of its partition in its calls, and what it learns from the answers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from bouquet.contract.partitions import NUM_PARTITIONS_HEADER, PARTITION_ID_HEADER, PINNED_HEADER, SLOT_HEADER
from bouquet.flower.node_session import NodeSession
from bouquet.flower.partition_interceptor import Partition, PartitionInterceptor


class SuperLink:
    """A server that records the metadata of each call, and answers with its own."""

    def __init__(self) -> None:
        self.said: list[dict[str, str]] = []
        self.answer: dict[str, str] = {}
        self._server = grpc.server(ThreadPoolExecutor(2))
        methods = {name: grpc.unary_unary_rpc_method_handler(self._serve) for name in ("PullMessages", "GetRun")}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("flwr.proto.Fleet", methods),))
        self._address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _serve(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        own = {key: value for key, value in context.invocation_metadata() if key.startswith("bouquet-")}
        self.said.append(own)
        context.set_trailing_metadata(tuple(self.answer.items()))
        return request

    def call(self, partition: Partition, method: str = "PullMessages") -> dict[str, str]:
        """Call as the node with this partition; return what it said."""
        with grpc.insecure_channel(self._address) as channel:
            intercepted = grpc.intercept_channel(channel, PartitionInterceptor(partition))
            intercepted.unary_unary(f"/flwr.proto.Fleet/{method}")(b"", timeout=10)
        return self.said[-1]

    def stop(self) -> None:
        self._server.stop(None)


@pytest.fixture
def superlink() -> Iterator[SuperLink]:
    server = SuperLink()
    yield server
    server.stop()


def test_a_node_with_a_lease_says_its_partition_and_learns_only_how_many_there_are(superlink: SuperLink) -> None:
    partition = Partition(4)
    superlink.answer = {PARTITION_ID_HEADER: "7", NUM_PARTITIONS_HEADER: "12"}
    assert superlink.call(partition) == {PARTITION_ID_HEADER: "4"}
    assert (partition.partition_id, partition.num_partitions) == (4, 12)


def test_a_node_of_a_cluster_says_its_slot_and_learns_its_partition(superlink: SuperLink) -> None:
    partition = Partition(slot=2)
    superlink.answer = {PARTITION_ID_HEADER: "5", NUM_PARTITIONS_HEADER: "9"}
    assert superlink.call(partition) == {SLOT_HEADER: "2"}
    assert superlink.call(partition) == {SLOT_HEADER: "2", PARTITION_ID_HEADER: "5"}
    assert (partition.partition_id, partition.num_partitions) == (5, 9)


def test_a_joined_node_that_is_pinned_asks_for_its_partition_in_each_call(superlink: SuperLink) -> None:
    partition = Partition(3, joined=True, pinned=True)
    said = {SLOT_HEADER: "joined", PARTITION_ID_HEADER: "3", PINNED_HEADER: "1"}
    superlink.answer = {PARTITION_ID_HEADER: "8"}
    assert superlink.call(partition) == superlink.call(partition) == said


def test_the_number_of_partitions_of_a_run_is_not_taken_for_the_fleets(superlink: SuperLink) -> None:
    partition = Partition(slot=0)
    superlink.answer = {NUM_PARTITIONS_HEADER: "5"}
    superlink.call(partition, "GetRun")
    assert partition.num_partitions is None


def test_a_run_gets_the_partition_that_the_superlink_has_assigned() -> None:
    partition = Partition(slot=2)
    session = NodeSession(partition=partition)
    configured: dict[str, bool | float | int | str] = {"partition-id": 2, "num-partitions": 1, "dataset": "/data"}
    assert session.node_config(configured) == configured
    partition.learn({PARTITION_ID_HEADER: "5", NUM_PARTITIONS_HEADER: "9"})
    assert session.node_config(configured) == {"partition-id": 5, "num-partitions": 9, "dataset": "/data"}
