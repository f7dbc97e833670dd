"""The Control API over HTTP, by the requests that `flwr` sends, against the servicer of a SuperLink with one run."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.common.constant import SubStatus
from flwr.proto import control_pb2
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.servicer.control.control_servicer import ControlServicer

from bouquet.flower import control_http, control_servicer
from bouquet.flower.control_http import METHODS, ControlHttp, route
from bouquet.flower.control_port import ControlPort
from bouquet.flower.control_servicer import EventControlServicer
from bouquet.flower.superlink_events import LOGS, SuperLinkEvents
from tests.unit.bouquet.flower.fakes import Traffic, after

PROTOBUF = {"content-type": "application/protobuf"}


class Served:
    """A Control API over HTTP."""

    def __init__(self, folder: Path) -> None:
        self.traffic = Traffic(folder / "superlink.db")
        self.woken: list[str] = []
        self.events = SuperLinkEvents(
            on_task=lambda: self.woken.append("task"), on_run_ended=lambda run_id: self.woken.append(f"ended {run_id}")
        )
        plugin = NoOpControlAuthnPlugin()
        servicer = EventControlServicer(
            self.traffic.states, self.traffic.objects, plugin, None, None, events=self.events
        )
        self.port = ControlPort("127.0.0.1:0", "127.0.0.1:1", ControlHttp(servicer, plugin))
        self.client = httpx.Client(base_url=f"http://{self.port.address}", timeout=10)

    def post(self, method: str, request: Any, **headers: str) -> httpx.Response:
        """Call a method."""
        content = request if isinstance(request, bytes) else request.SerializeToString()
        return self.client.post(route(method), content=content, headers=PROTOBUF | headers)

    def logs(self, run_id: int) -> Iterator[str]:
        """Stream the log of a run."""
        request = control_pb2.StreamLogsRequest(run_id=run_id).SerializeToString()
        with self.client.stream("POST", route("StreamLogs"), content=request, headers=PROTOBUF) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"] == "application/flower-protobuf-stream"
            for frame in response.iter_raw():
                assert int.from_bytes(frame[:4], "big") == len(frame) - 4
                yield control_pb2.StreamLogsResponse.FromString(frame[4:]).log_output

    def log(self, text: str) -> None:
        """Store log lines, as the ServerApp's PushLogs does."""
        (task,) = self.traffic.state.get_tasks()
        self.traffic.state.add_task_log(task.task_id, text)
        self.events.notifier.notify(LOGS)

    def finish(self) -> None:
        """End the run, as the ServerApp's PushTaskOutput does."""
        (task,) = self.traffic.state.get_tasks()
        self.traffic.state.finish_task(task.task_id, SubStatus.FAILED, "")
        self.events.end_run(self.traffic.run_id)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(control_servicer, "LOG_POLL_SECONDS", 0.5)
    found = Served(tmp_path)
    yield found
    found.client.close()
    found.port.close()


def test_each_method_of_the_service_has_the_path_that_flwr_uses() -> None:
    assert len(METHODS) == len(control_pb2.DESCRIPTOR.services_by_name["Control"].methods)
    paths = ("start-run", "stream-logs", "list-runs", "stop-run", "list-nodes", "begin-connector-oauth")
    assert {f"/v1/control/{path}" for path in paths} <= METHODS.keys()


def test_runs_are_listed(served: Served) -> None:
    response = served.post("ListRuns", control_pb2.ListRunsRequest())
    assert response.headers["content-type"] == "application/protobuf"
    assert list(control_pb2.ListRunsResponse.FromString(response.content).run_dict) == [served.traffic.run_id]


def test_a_run_that_is_stopped_over_http_wakes_the_executor(served: Served) -> None:
    response = served.post("StopRun", control_pb2.StopRunRequest(run_id=served.traffic.run_id))
    assert control_pb2.StopRunResponse.FromString(response.content).success
    assert served.woken == [f"ended {served.traffic.run_id}"]


def test_a_run_that_is_started_over_http_wakes_the_executor(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    started = control_pb2.StartRunResponse(run_id=7)
    monkeypatch.setattr(ControlServicer, "StartRun", lambda *_: started)
    response = served.post("StartRun", control_pb2.StartRunRequest())
    assert control_pb2.StartRunResponse.FromString(response.content).run_id == 7
    assert served.woken == ["task"]


def test_fields_of_a_newer_flwr_are_ignored(served: Served) -> None:
    newer = control_pb2.ListRunsRequest().SerializeToString() + b"\x18\x05\x92\x01\x03abc"
    assert served.post("ListRuns", newer).status_code == 200


def test_log_lines_are_streamed_as_they_come_until_the_run_ends(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_servicer, "LOG_POLL_SECONDS", 30.0)
    served.log("first\n")
    lines = served.logs(served.traffic.run_id)
    assert next(lines) == "first\n"
    start = time.monotonic()
    after(0.1, lambda: served.log("second\n"))
    assert next(lines) == "second\n"
    after(0.1, served.finish)
    assert list(lines) == []
    assert time.monotonic() - start < 10, "the stream waited for its poll, not for a notification"


def test_a_stream_answers_before_its_first_line(served: Served) -> None:
    request = control_pb2.StreamLogsRequest(run_id=served.traffic.run_id).SerializeToString()
    with served.client.stream("POST", route("StreamLogs"), content=request, headers=PROTOBUF) as response:
        assert response.status_code == 200


def test_a_stream_ends_when_its_client_leaves(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    stream = EventControlServicer._stream_logs

    def watched(*arguments: Any) -> Iterator[Any]:
        yield from stream(*arguments)
        ended.set()

    monkeypatch.setattr(EventControlServicer, "_stream_logs", watched)
    served.log("first\n")
    lines = served.logs(served.traffic.run_id)
    assert next(lines) == "first\n"
    lines.close()  # type: ignore[attr-defined]
    assert ended.wait(10)


def test_the_log_of_an_unknown_run_is_an_error_that_flwr_can_show(served: Served) -> None:
    response = served.post("StreamLogs", control_pb2.StreamLogsRequest(run_id=1))
    assert response.status_code == 404
    assert response.json()["public_message"] == "Run ID not found."


def test_a_method_that_1_34_does_not_have_is_an_error_that_names_the_release(served: Served) -> None:
    response = served.client.post("/v1/control/add-app", headers=PROTOBUF)
    assert response.status_code == 404
    assert response.json()["detail"] == "This SuperLink is Flower 1.34.0, which has no /v1/control/add-app"


def test_a_browsers_request_is_refused(served: Served) -> None:
    run = control_pb2.StopRunRequest(run_id=served.traffic.run_id)
    assert served.post("StopRun", run, origin="https://example.org").status_code == 403
    for simple in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert served.post("StopRun", run, **{"content-type": simple}).status_code == 415
    question = served.client.options(route("StopRun"), headers={"origin": "https://example.org"})
    assert question.status_code == 405
    assert not any(name.startswith("access-control") for name in question.headers)
    assert served.woken == []


def test_a_body_that_is_no_message_or_too_large_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served.post("StopRun", b"\xff\xff\xff").status_code == 400
    monkeypatch.setattr(control_http, "MAX_REQUEST_BYTES", 1000)
    assert served.post("StopRun", bytes(1001)).status_code == 413


def test_a_body_that_stops_to_arrive_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_http, "STALL_SECONDS", 0.1)

    def body() -> Iterator[bytes]:
        yield b"part"
        time.sleep(1)

    response = served.client.post(route("StopRun"), content=body(), headers=PROTOBUF)
    assert response.status_code == 408
