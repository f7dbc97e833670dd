"""When the SuperNode's Runtime API answers a question for tasks."""

from typing import Any

import pytest
from flwr.proto.runtime_pb2 import PullPendingTasksRequest
from flwr.supercore.constant import TaskType

from bouquet.flower import supernode_runtime
from bouquet.flower.supernode_runtime import NodeRuntimeServicer
from tests.unit.bouquet.flower.fakes import Caller, after
from tests.unit.bouquet.flower.node_fakes import Node


def pending(node: Node, monkeypatch: pytest.MonkeyPatch, seconds: float) -> int:
    """Ask for tasks; return how many were pending."""
    monkeypatch.setattr(supernode_runtime, "TASK_HOLD_SECONDS", seconds)
    state: Any = type("Factory", (), {"state": lambda self: node.state})()
    caller: Any = Caller()
    servicer = NodeRuntimeServicer(state, state, node.session)
    return len(servicer.PullPendingTasks(PullPendingTasksRequest(), caller).tasks)


def test_a_task_is_pending_only_once_its_message_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()
    assert node.state.create_task(task_type=TaskType.CLIENT_APP, run_id=1, fab_hash="hash") is not None
    node.session.message_arrived()
    assert pending(node, monkeypatch, 0.1) == 0
    after(0.1, node.session.message_received)
    assert pending(node, monkeypatch, 5) == 1
