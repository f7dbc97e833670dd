"""Deadlines of nodes and tasks, and what becomes of them when the machine sleeps or its clock is set."""

import datetime
import threading
from pathlib import Path

import grpc
import pytest
from flwr.common.constant import NOOP_FLWR_AID, Status
from flwr.supercore.constant import NOOP_FEDERATION_ID, NodeStatus, TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager

from bouquet.flower import heartbeat
from bouquet.flower.heartbeat import Heartbeat
from bouquet.flower.link_state import LinkState
from bouquet.flower.liveness import Liveness
from bouquet.flower.message_files import MessageFiles
from bouquet.flower.node_state import SteadyNodeState
from bouquet.flower.notifier import KeyedNotifier
from bouquet.flower.object_files import ObjectFilesFactory
from bouquet.runtime.steady_clock import SteadyClock

FLOWERS_CLOCKS = (
    "flwr.server.superlink.linkstate.sql_linkstate",
    "flwr.server.superlink.linkstate.in_memory_linkstate",
    "flwr.server.superlink.linkstate.utils",
    "flwr.supercore.corestate.sql_corestate",
    "flwr.supercore.corestate.in_memory_corestate",
)
JUMPS = [75, -75, 86400]
"""Seconds: more than the minute that a node or a task may be silent."""


class Machine:
    """A machine whose clock a test moves, for Flower and for Bouquet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1_800_000_000.0
        self.clock = SteadyClock(lambda: self.seconds)
        for module in FLOWERS_CLOCKS:
            monkeypatch.setattr(f"{module}.now", lambda: datetime.datetime.fromtimestamp(self.seconds, datetime.UTC))

    def jump(self, seconds: float) -> None:
        """The machine sleeps, its processes are frozen, or someone sets the clock."""
        self.seconds += seconds

    def run(self, seconds: int) -> None:
        """The machine works."""
        for _ in range(seconds):
            self.seconds += 1
            self.clock.time()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    # Answers of the database are kept for a second of CLOCK_MONOTONIC, which passes as it does outside the test.
    monkeypatch.setattr("bouquet.flower.link_state.FRESH_SECONDS", -1)
    return Machine(monkeypatch)


@pytest.fixture
def state(machine: Machine, tmp_path: Path) -> LinkState:
    path, files = str(tmp_path / "superlink.db"), MessageFiles(tmp_path / "messages")
    objects = ObjectFilesFactory(path, files).store()
    state = LinkState(path, NoOpFederationManager(), objects, files, machine.clock, lambda: machine.seconds)
    state.initialize()
    return state


@pytest.fixture
def node_id(state: LinkState) -> int:
    node_id = state.create_node("owner", "name", b"key", 30)
    state.activate_node(node_id, 30)
    return node_id


def node_status(state: LinkState) -> str:
    (node,) = state.get_node_info()
    return node.status


@pytest.mark.usefixtures("node_id")
@pytest.mark.parametrize("jump", JUMPS)
def test_a_node_stays_online_when_the_clock_jumps(machine: Machine, state: LinkState, jump: float) -> None:
    machine.jump(jump)
    assert node_status(state) == NodeStatus.ONLINE
    machine.run(55)
    assert node_status(state) == NodeStatus.ONLINE


@pytest.mark.usefixtures("node_id")
@pytest.mark.parametrize("jump", JUMPS)
def test_a_node_that_stays_silent_after_a_jump_is_offline_a_minute_later(
    machine: Machine, state: LinkState, jump: float
) -> None:
    machine.jump(jump)
    machine.run(62)
    assert node_status(state) == NodeStatus.OFFLINE


@pytest.mark.parametrize("jump", JUMPS)
def test_a_heartbeat_that_is_the_first_call_after_a_jump_counts_from_then(
    machine: Machine, state: LinkState, node_id: int, jump: float
) -> None:
    machine.jump(jump)
    assert state.acknowledge_node_heartbeat(node_id, 30)
    machine.run(58)
    assert node_status(state) == NodeStatus.ONLINE
    machine.run(4)
    assert node_status(state) == NodeStatus.OFFLINE


@pytest.fixture
def task_id(state: LinkState) -> int:
    state.create_run("id", "1", "0", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP)
    (task,) = state.get_tasks()
    return task.task_id


@pytest.mark.parametrize("jump", JUMPS)
def test_a_run_survives_a_jump(machine: Machine, state: LinkState, task_id: int, jump: float) -> None:
    token = state.claim_task(task_id)
    assert token is not None
    state.activate_task(task_id)
    machine.jump(jump)
    assert state.get_task_by_token(token) is not None
    assert state.acknowledge_task_heartbeat(task_id)
    machine.run(55)
    assert state.get_tasks()[0].status.status == Status.RUNNING


@pytest.mark.parametrize("jump", JUMPS)
def test_a_run_whose_server_app_stays_silent_after_a_jump_fails(
    machine: Machine, state: LinkState, task_id: int, jump: float
) -> None:
    state.claim_task(task_id)
    state.activate_task(task_id)
    machine.jump(jump)
    machine.run(62)
    assert state.get_tasks()[0].status.details == "No heartbeat received from the task"


def test_who_follows_a_log_gets_the_lines_that_come_after_the_clock_was_set_back(
    machine: Machine, state: LinkState, task_id: int
) -> None:
    state.add_task_log(task_id, "before")
    text, latest = state.get_task_log(task_id, 0.0)
    machine.jump(-75)
    state.add_task_log(task_id, "after")
    assert text == "before"
    assert state.get_task_log(task_id, latest)[0] == "after"
    assert state.get_task_log(task_id, 0.0)[0] == "beforeafter"


@pytest.mark.parametrize("jump", JUMPS)
def test_a_task_of_a_supernode_survives_a_jump(machine: Machine, jump: float) -> None:
    state = SteadyNodeState(ObjectStoreFactory().store(), machine.clock)
    task_id = state.create_task(TaskType.CLIENT_APP, 1)
    assert task_id is not None
    machine.jump(jump)
    token = state.claim_task(task_id)
    assert token is not None
    assert state.activate_task(task_id)
    machine.jump(jump)
    assert state.get_task_by_token(token) is not None
    machine.run(55)
    assert state.acknowledge_task_heartbeat(task_id)
    machine.run(62)
    assert state.get_task_by_token(token) is None


def test_a_node_is_not_gone_because_the_superlink_was_frozen(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = list[int]()
    watch = Liveness(KeyedNotifier(), gone.append, machine.clock)
    monkeypatch.setattr(threading, "Timer", FakeTimer)
    watch._lose(7)
    machine.jump(75)
    timer = FakeTimer.last
    timer.fire()
    assert gone == []
    assert FakeTimer.last is not timer
    machine.run(30)
    FakeTimer.last.fire()
    assert gone == [7]


class FakeTimer:
    """A timer that a test fires."""

    last: "FakeTimer"

    def __init__(self, seconds: float, function: object, arguments: tuple[object, ...]) -> None:
        self.function, self.arguments = function, arguments
        FakeTimer.last = self

    def start(self) -> None:
        """Do nothing."""

    def fire(self) -> None:
        """Time is up."""
        assert callable(self.function)
        self.function(*self.arguments)


def test_heartbeats_that_were_not_answered_in_a_freeze_do_not_count(machine: Machine) -> None:
    offline = list[str]()

    def unanswered() -> bool:
        raise heartbeat_error

    heartbeat_error = Unanswered()
    sender = Heartbeat(unanswered, lambda: None, offline.append, machine.clock)
    machine.jump(75)
    assert not sender._attempt()
    assert offline == []
    machine.run(int(heartbeat.UNANSWERED_SECONDS) + 1)
    assert not sender._attempt()
    assert offline == ["the SuperLink does not answer heartbeats"]


class Unanswered(grpc.RpcError):  # type: ignore[misc] # grpc has no types
    def code(self) -> object:
        return grpc.StatusCode.DEADLINE_EXCEEDED
