"""The client of the Control API, against one in this process."""

# ruff: noqa: N802  the methods have the names of the calls

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from flwr.proto import control_pb2, node_pb2, run_pb2
from flwr.proto.control_pb2_grpc import ControlServicer, add_ControlServicer_to_server

from bouquet.flower.control_client import ControlApiError, ControlClient, FleetDescription, KnownNode, KnownRun


class FakeControl(ControlServicer):
    refusal = ""
    stopped = 0
    submitted: Any = None

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

    def ListRuns(self, request: Any, context: grpc.ServicerContext) -> Any:
        running = run_pb2.RunStatus(status="running")
        failed = run_pb2.RunStatus(status="finished", sub_status="failed", details="no data")
        runs = {
            6: run_pb2.Run(run_id=6, status=running, pending_at="2026-01-01T00:00:00+00:00"),
            7: run_pb2.Run(run_id=7, status=failed, pending_at="2026-01-01T00:00:09.5+00:00"),
        }
        if not request.HasField("run_id"):
            return control_pb2.ListRunsResponse(run_dict=runs)
        if request.run_id not in runs:
            unknown = {"code": 16, "public_message": "Run ID not found.", "public_details": None}
            context.abort(grpc.StatusCode.NOT_FOUND, json.dumps(unknown))
        return control_pb2.ListRunsResponse(run_dict={request.run_id: runs[request.run_id]})

    def StartRun(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.refusal:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refusal)
        self.submitted = request
        return control_pb2.StartRunResponse(run_id=8)

    def StopRun(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.stopped = request.run_id
        return control_pb2.StopRunResponse(success=request.run_id == 6)

    def StreamLogs(self, request: Any, context: grpc.ServicerContext) -> Any:
        for time, line in ((1.0, "one\n"), (2.0, "two\n")):
            if time > request.after_timestamp:
                yield control_pb2.StreamLogsResponse(log_output=line, latest_timestamp=time)
        if self.refusal:
            context.abort(grpc.StatusCode.UNAVAILABLE, self.refusal)


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
    assert client.register(b"new") == 4
    servicer.refusal = "The public key is already in use."
    assert client.register(b"key") is None


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


def test_a_run_has_its_status_the_details_and_the_time_of_its_submission(
    control: tuple[FakeControl, ControlClient],
) -> None:
    failed = KnownRun(7, "finished:failed", "no data", 1767225609.5)
    assert control[1].find_run(7, 5) == failed
    assert control[1].list_runs(5) == [KnownRun(6, "running", "", 1767225600.0), failed]


def test_a_stock_superlink_describes_no_node(control: tuple[FakeControl, ControlClient]) -> None:
    assert control[1].describe(5) == FleetDescription(None, {})


def test_an_error_of_flower_is_its_message_rather_than_json(control: tuple[FakeControl, ControlClient]) -> None:
    with pytest.raises(ControlApiError, match="NOT_FOUND: Run ID not found.;"):
        control[1].find_run(8, 5)


def test_a_run_is_stopped_or_the_error_says_that_it_was_not(control: tuple[FakeControl, ControlClient]) -> None:
    servicer, client = control
    client.stop_run(6, 5)
    assert servicer.stopped == 6
    with pytest.raises(ControlApiError, match="run 7 could not be stopped"):
        client.stop_run(7, 5)


def test_a_log_is_streamed_from_a_time_on_and_an_interruption_is_an_error(
    control: tuple[FakeControl, ControlClient],
) -> None:
    servicer, client = control
    assert list(client.stream_log(6, 0.0, 5)) == [("one\n", 1.0), ("two\n", 2.0)]
    assert list(client.stream_log(6, 1.0, 5)) == [("two\n", 2.0)]
    servicer.refusal = "going away"
    with pytest.raises(ControlApiError, match="UNAVAILABLE: going away"):
        list(client.stream_log(6, 0.0, 5))


def test_a_run_is_submitted_as_flwr_run_does_it(control: tuple[FakeControl, ControlClient]) -> None:
    servicer, client = control
    assert client.start_run(b"fab", "rounds=3 name='a b'", 5) == 8
    assert servicer.submitted.fab.content == b"fab"
    assert servicer.submitted.fab.hash_str == hashlib.sha256(b"fab").hexdigest()
    assert servicer.submitted.override_config["rounds"].sint64 == 3
    assert servicer.submitted.override_config["name"].string == "a b"


def test_a_rejected_run_is_an_error(control: tuple[FakeControl, ControlClient]) -> None:
    servicer, client = control
    servicer.refusal = "no such key"
    with pytest.raises(ControlApiError, match="INVALID_ARGUMENT: no such key"):
        client.start_run(b"fab", "", 5)
