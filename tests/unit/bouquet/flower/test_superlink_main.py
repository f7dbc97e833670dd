"""The SuperLink's start and end, with real gRPC servers in this process."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from flwr.common.constant import NOOP_FLWR_AID, Status
from flwr.proto import control_pb2, fleet_pb2, log_pb2, runtime_pb2
from flwr.proto.control_pb2_grpc import ControlStub
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.runtime_pb2_grpc import RuntimeStub
from flwr.supercore.constant import NOOP_FEDERATION_ID, NodeStatus, TaskType
from flwr.supercore.exit import ExitCode
from flwr.supercore.exit.exit_handler import trigger_exit_handlers
from flwr.superlink.cli.flower_superlink import _parse_superlink_lifespan_config

from bouquet.flower import superlink_main
from bouquet.flower.control_client import ControlApiError, ControlClient, NodeDescription
from bouquet.flower.link_state import LinkState
from bouquet.flower.message_files import MessageFiles
from bouquet.flower.superlink_events import LOGS, SuperLinkEvents, replies_key
from bouquet.flower.superlink_main import EventLifespan, SuperLinkParts, create_lifespan, run_superlink
from bouquet.superlink.node_records import NodeRecords
from bouquet.superlink.partition_map import Origin, PartitionMap
from tests.unit.bouquet.flower.fakes import Traffic

ANY_PORT = "127.0.0.1:0"


class SuperLink:
    """A SuperLink that was not started yet."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.database = folder / "superlink.db"
        self.monkeypatch = monkeypatch
        self.serving: list[bool] = []
        self.events = SuperLinkEvents(on_serving=lambda: self.serving.append(True))
        self.lifespans: list[EventLifespan] = []

    def arguments(self, *more: str) -> None:
        """Set the command line."""
        apis = [f"--{api}-api-address={ANY_PORT}" for api in ("control", "fleet", "serverappio")]
        arguments = ["flower-superlink", "--insecure", "--isolation=process", f"--database={self.database}"]
        self.monkeypatch.setattr(sys, "argv", [*arguments, *apis, *more])

    def create(self, *more: str, first: bool = True) -> EventLifespan:
        """Create the SuperLink with more arguments."""
        self.arguments(*more)
        config = _parse_superlink_lifespan_config()
        lifespan = create_lifespan(config, self.events, self._files(), self._parts(first))
        self.lifespans.append(lifespan)
        return lifespan

    def start(self, first: bool = True) -> LinkState:
        """Start the SuperLink, and return its state."""
        lifespan = self.create(first=first)
        lifespan.startup()
        state = lifespan.state_factory.state()
        assert isinstance(state, LinkState)
        return state

    def run(self) -> None:
        """Run the SuperLink until it exits."""
        run_superlink(self.events, self._files(), self._parts())

    def _files(self) -> MessageFiles:
        return MessageFiles(self.folder / "messages")

    def _parts(self, first: bool = True) -> SuperLinkParts:
        partitions = PartitionMap(self.folder, self.folder)
        return SuperLinkParts(self.folder, partitions, NodeRecords(self.folder), first=first)

    def channel(self, api: int) -> grpc.Channel:
        """Connect to the API that started as number `api`."""
        return grpc.insecure_channel(self.lifespans[-1].grpc_servers[api].bound_address)


@pytest.fixture
def superlink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SuperLink]:
    found = SuperLink(tmp_path, monkeypatch)
    yield found
    for lifespan in found.lifespans:
        lifespan.shutdown()


def test_the_three_apis_serve_before_it_is_reported(superlink: SuperLink) -> None:
    state = superlink.start()
    assert superlink.serving == [True]
    runs = ControlStub(superlink.channel(0)).ListRuns(control_pb2.ListRunsRequest())
    assert list(runs.run_dict) == []
    run_id = state.create_run("id", "1", "0", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP)
    (task,) = RuntimeStub(superlink.channel(1)).PullPendingTasks(runtime_pb2.PullPendingTasksRequest()).tasks
    assert task.run_id == run_id
    with pytest.raises(grpc.RpcError) as refused:
        FleetStub(superlink.channel(2)).PullMessages(fleet_pb2.PullMessagesRequest())
    assert "Missing authentication metadata" in str(refused.value)


def test_the_control_api_speaks_grpc_and_http_at_its_address(superlink: SuperLink) -> None:
    superlink.start()
    port = superlink.lifespans[-1].control_port
    assert port is not None
    runs = ControlStub(grpc.insecure_channel(port.address)).ListRuns(control_pb2.ListRunsRequest(), timeout=10)
    headers = {"content-type": "application/protobuf"}
    answer = httpx.post(f"http://{port.address}/v1/control/list-runs", headers=headers, timeout=10)
    assert control_pb2.ListRunsResponse.FromString(answer.content).run_dict == runs.run_dict
    superlink.lifespans[-1].shutdown()
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"http://{port.address}/v1/control/list-runs", headers=headers, timeout=10)


def test_servicers_of_one_superlink_share_its_events(superlink: SuperLink) -> None:
    state = superlink.start()
    run_id = state.create_run("id", "1", "0", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP)
    (task,) = state.get_tasks()
    token = state.claim_task(task.task_id)
    assert token is not None
    assert state.activate_task(task.task_id)
    runtime = RuntimeStub(superlink.channel(1))
    logs = log_pb2.PushLogsRequest(run_id=run_id, logs=["line\n"], node=None)
    runtime.PushLogs(logs, metadata=(("flwr-task-token", token),))
    stream = ControlStub(superlink.channel(0)).StreamLogs(control_pb2.StreamLogsRequest(run_id=run_id))
    assert next(stream).log_output == "line\n"
    assert superlink.events.notifier.count(LOGS) == 1
    stream.cancel()


@pytest.mark.parametrize(("first", "status"), [(True, Status.FINISHED), (False, Status.RUNNING)])
def test_running_tasks_fail_with_the_first_process_of_a_container(
    superlink: SuperLink, first: bool, status: str
) -> None:
    traffic = Traffic(superlink.database)
    (task,) = traffic.state.get_tasks()
    traffic.state.claim_task(task.task_id)
    traffic.state.activate_task(task.task_id)
    state = superlink.start(first=first)
    assert state.get_run_status({traffic.run_id})[traffic.run_id].status == status


def test_a_node_that_is_gone_is_offline_and_its_server_apps_are_woken(superlink: SuperLink) -> None:
    traffic = Traffic(superlink.database)
    traffic.send()
    state = superlink.start(first=False)
    before = superlink.events.notifier.count(replies_key(traffic.run_id))
    superlink.events.liveness.on_gone(traffic.node_id)
    (node,) = state.get_node_info()
    assert node.status == NodeStatus.OFFLINE
    assert superlink.events.notifier.count(replies_key(traffic.run_id)) == before + 1


def test_a_node_is_described_and_named_until_it_is_removed(superlink: SuperLink) -> None:
    state = superlink.start()
    one, two = (state.create_node(NOOP_FLWR_AID, "", key, 30) for key in (b"one", b"two"))
    state.activate_node(one, 30)
    lifespan = superlink.lifespans[-1]
    lifespan._parts.records.note_kind(one, "joined")
    lifespan._parts.partitions.admit(one, Origin(joined=True))
    assert lifespan.control_port is not None
    with ControlClient(lifespan.control_port.address, None) as client:
        client.name_node(one, "north", 10)
        assert client.describe(10).nodes == {
            one: NodeDescription("north", 0, "joined", True),
            two: NodeDescription("", None, "", False),
        }
        for node_id, name, code in (
            (two, "north", "ALREADY_EXISTS"),
            (two, "No Name", "INVALID_ARGUMENT"),
            (7, "x", "NOT_FOUND"),
        ):
            with pytest.raises(ControlApiError, match=code):
                client.name_node(node_id, name, 10)
        client.unregister(one, 10)
        assert client.describe(10).nodes.keys() == {two}
        client.name_node(two, "north", 10)
    assert superlink.events.removed == {one}
    assert lifespan._parts.partitions.held_by(one, online=False) is None


def test_a_shutdown_answers_held_calls(superlink: SuperLink) -> None:
    superlink.start()
    call = RuntimeStub(superlink.channel(1)).PullPendingTasks.future(runtime_pb2.PullPendingTasksRequest())
    with pytest.raises(grpc.FutureTimeoutError):
        call.result(timeout=0.5)
    superlink.lifespans[-1].shutdown()
    assert list(call.result(timeout=3).tasks) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--enable-http-api"], "--enable-http-api"),
        (["--database", ":flwr-in-memory:"], "--database is ':flwr-in-memory:'.*path of a file"),
        (["--database", "postgresql://host/name"], "--database is 'postgresql://host/name'"),
    ],
)
def test_arguments_that_are_not_supported_are_refused(superlink: SuperLink, arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        superlink.create(*arguments)


@pytest.fixture
def signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Codes and messages with which the process would have ended."""
    found = []

    def flwr_exit(code: int, message: str) -> None:
        found.append((code, message))
        raise SystemExit(1)

    monkeypatch.setattr(superlink_main, "flwr_exit", flwr_exit)
    return found


def test_a_superlink_serves_until_a_signal_and_then_shuts_down(superlink: SuperLink, signals: None) -> None:
    superlink.arguments()
    done: list[str] = []

    def pause() -> None:
        done.append(f"serving: {superlink.serving}")
        signal.raise_signal(signal.SIGTERM)

    def exit_by_signal(code: int, message: str, event_type: Any) -> None:
        done.append(message)
        trigger_exit_handlers()
        raise SystemExit(0)

    def shutdown(lifespan: EventLifespan) -> None:
        done.append("shutdown")
        stop(lifespan)

    stop = EventLifespan.shutdown
    superlink.monkeypatch.setattr(EventLifespan, "shutdown", shutdown)
    superlink.monkeypatch.setattr("signal.pause", pause)
    superlink.monkeypatch.setattr("flwr.supercore.exit.signal_handler.flwr_exit", exit_by_signal)
    with pytest.raises(SystemExit):
        superlink.run()
    assert done == ["serving: [True]", "SuperLink terminated gracefully.", "shutdown"]


def test_a_start_that_fails_is_reported_as_flower_does(
    superlink: SuperLink, exits: list[tuple[int, str]], signals: None
) -> None:
    superlink.database = superlink.folder / "missing" / "superlink.db"
    superlink.arguments()
    with pytest.raises(SystemExit):
        superlink.run()
    ((code, message),) = exits
    assert code == ExitCode.SUPERLINK_INVALID_ARGS
    assert "unable to open database file" in message
    assert superlink.serving == []
