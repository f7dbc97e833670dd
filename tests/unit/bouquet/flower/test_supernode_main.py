"""A SuperNode's place in a fleet that changes: what its runs see, and when it ends."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from bouquet.flower.supernode_main import Node

CONFIG = {"partition-id": 3, "num-partitions": 4, "dataset": "/data"}


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    return sent


def turn(node: Node, message: object = None) -> dict[str, Any]:
    """One turn of Flower's main loop, with a message or without; return the node config of a run that begins in it."""
    seen: dict[str, Any] = {}

    def pull_and_store(node_config: dict[str, Any], **rest: Any) -> None:
        seen.update(kept=node_config)
        node.receive(lambda: message)

    node.next_message(pull_and_store, node_config=CONFIG, state=None)
    return dict(seen["kept"])


def test_a_run_that_begins_after_a_change_of_size_sees_it_and_one_before_does_not() -> None:
    node = Node()
    before = turn(node)
    node.resize(20)
    assert turn(node) == CONFIG | {"num-partitions": 20}
    assert before == CONFIG


def test_a_node_without_work_leaves_at_once(signals: list[int]) -> None:
    node = Node()
    turn(node)
    node.leave("the fleet has 2 SuperNodes now")
    assert signals == [signal.SIGTERM]


def test_a_node_that_works_on_a_message_leaves_when_it_has_answered(signals: list[int]) -> None:
    node = Node()
    turn(node, message=(SimpleNamespace(metadata=SimpleNamespace(message_id="m")), None))
    node.leave("the fleet has 2 SuperNodes now")
    assert signals == []
    turn(node)
    assert signals == [signal.SIGTERM]
