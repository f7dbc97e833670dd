"""The client of the Control API, against one in this process."""

# ruff: noqa: N802  the methods have the names of the calls

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from flwr.proto import control_pb2, node_pb2
from flwr.proto.control_pb2_grpc import ControlServicer, add_ControlServicer_to_server

from bouquet.flower.control_client import ControlApiError, ControlClient, KnownNode


class FakeControl(ControlServicer):
    refusal = ""

    def ListNodes(self, request: Any, context: grpc.ServicerContext) -> Any:
        return control_pb2.ListNodesResponse(
            nodes_info=[
                node_pb2.NodeInfo(
                    node_id=1, status="online", public_key=b"key", online_until=1060.0, heartbeat_interval=30.0
                ),
                node_pb2.NodeInfo(node_id=2, status="registered", public_key=b"other"),
                node_pb2.NodeInfo(node_id=3, status="unregistered", public_key=b"removed"),
            ]
        )

    def RegisterNode(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.refusal:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refusal)
        return control_pb2.RegisterNodeResponse(node_id=4)


@pytest.fixture
def control() -> Iterator[tuple[FakeControl, ControlClient]]:
    servicer = FakeControl()  # type: ignore[abstract]
    server = grpc.server(ThreadPoolExecutor(4))
    add_ControlServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with ControlClient(f"127.0.0.1:{port}", None) as client:
        yield servicer, client
    server.stop(None)


def test_all_nodes_are_listed_with_their_last_heartbeat(control: tuple[FakeControl, ControlClient]) -> None:
    assert control[1].list_nodes(5) == [
        KnownNode(1, "online", 1000.0, b"key"),
        KnownNode(2, "registered", None, b"other"),
        KnownNode(3, "unregistered", None, b"removed"),
    ]


def test_a_node_that_was_removed_is_not_registered(control: tuple[FakeControl, ControlClient]) -> None:
    assert control[1].registered() == {b"key": 1, b"other": 2}


def test_a_key_that_was_ever_used_is_not_registered_again(control: tuple[FakeControl, ControlClient]) -> None:
    servicer, client = control
    assert client.register(b"new") is True
    servicer.refusal = "The public key is already in use."
    assert client.register(b"key") is False


def test_another_refusal_is_an_error_that_names_the_address_and_the_reason(
    control: tuple[FakeControl, ControlClient],
) -> None:
    servicer, client = control
    servicer.refusal = "malformed key"
    with pytest.raises(ControlApiError, match=r"^127\.0\.0\.1:\d+: FAILED_PRECONDITION: malformed key; "):
        client.register(b"bad")


def test_a_superlink_that_is_not_there_is_an_error_within_the_time_that_is_set() -> None:
    with ControlClient("127.0.0.1:1", None) as client, pytest.raises(ControlApiError, match="UNAVAILABLE"):
        client.list_nodes(5)
