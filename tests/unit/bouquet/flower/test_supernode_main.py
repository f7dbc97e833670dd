"""The main loop of a SuperNode: when it pulls, what its runs see, and when it ends."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from flwr.supercore.run import RunNotRunningException

from bouquet.contract.keys import make_key
from bouquet.flower import supernode_main
from bouquet.flower.node_session import NodeSession
from bouquet.flower.supernode_main import run_supernode
from tests.unit.bouquet.flower.fakes import after
from tests.unit.bouquet.flower.node_fakes import CONFIG, RUN_ID, Node, message, reply_to


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    return sent


def seconds_of_a_turn(node: Node) -> float:
    start = time.monotonic()
    node.loop.turn()
    return time.monotonic() - start


def node_config(node: Node, run_id: int) -> dict[str, Any]:
    """Begin a run; return the node config that its ClientApps see."""
    received = message(run_id, run_id)
    node.client.messages = [received]
    node.client.objects |= Node(received).client.objects
    seen: list[dict[str, Any]] = []

    def look() -> None:
        context = node.state.get_run_series_context(0)
        assert context is not None
        seen.append(dict(context.node_config))

    node.client.on_pull_object = look
    node.hand_over(reply_to(received))
    node.loop.turn()
    return seen[0]


def test_a_run_that_begins_after_a_change_of_size_sees_it_and_one_before_does_not() -> None:
    node = Node()
    before = node_config(node, RUN_ID)
    first_context = node.state.get_run_series_context(0)
    node.session.resize(20)
    assert node_config(node, RUN_ID + 1) == CONFIG | {"num-partitions": 20}
    assert before == CONFIG
    assert first_context is not None
    assert first_context.node_config == CONFIG


def test_the_number_of_partitions_of_a_run_is_the_superlinks_whatever_the_size_is_now() -> None:
    node = Node()
    node.client.num_partitions = 10
    node.session.resize(20)
    assert node_config(node, RUN_ID) == CONFIG | {"num-partitions": 10}


def test_a_node_without_work_leaves_at_once(signals: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernode_main, "STOCK_PULL_SECONDS", 0)
    node = Node()
    node.loop.turn()
    node.session.leave("the fleet has 2 SuperNodes now")
    assert signals == [signal.SIGTERM]
    node.loop.turn()
    assert signals == [signal.SIGTERM]


def test_a_node_that_works_on_a_message_leaves_when_it_has_answered(signals: list[int]) -> None:
    received = message(1)
    node = Node(received)
    node.client.on_pull_object = lambda: node.session.leave("the fleet has 2 SuperNodes now")
    before: list[int] = []
    node.client.on_send = lambda reply: before.extend(signals)
    after(0.1, lambda: node.hand_over(reply_to(received)))
    node.loop.turn()
    assert len(node.client.sent) == 1
    assert before == []
    assert signals == [signal.SIGTERM]


def test_nobody_starts_the_task_of_a_message_before_its_objects_are_here() -> None:
    received = message(1)
    node = Node(received)
    receiving: list[bool] = []
    node.client.on_pull_object = lambda: receiving.append(node.session.is_receiving)
    node.session.tasks.wait(0)
    woken: list[bool] = []

    def start_task() -> None:
        node.session.tasks.wait(5)
        woken.append(node.session.is_receiving)
        node.hand_over(reply_to(received))

    after(0, start_task)
    node.loop.turn()
    assert set(receiving) == {True}
    assert woken == [False]
    assert node.client.confirmed == [received.metadata.message_id]


def test_a_message_that_nobody_has_pulled_when_its_run_ends_does_not_hold_up_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bouquet.flower.supernode_main.REPLY_CHECK_SECONDS", 0.05)
    node = Node(message(1))
    turn = threading.Thread(target=node.loop.turn, daemon=True)  # the fake's runs have ended when they are watched
    turn.start()
    turn.join(10)
    assert not turn.is_alive()
    assert node.client.sent == []
    assert node.state.get_messages() == []


def test_a_message_whose_run_ends_while_its_objects_come_leaves_nothing_for_a_client_app_to_wait_for() -> None:
    node = Node(message(1))

    def end_run() -> None:
        raise RunNotRunningException

    node.client.on_pull_object = end_run
    node.loop.turn()
    assert node.state.get_messages() == []
    assert [task.status.status for task in node.state.get_tasks()] == ["finished"]
    assert len(node.objects) == 0


def test_after_an_empty_pull_that_was_held_the_next_follows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernode_main, "HELD_SECONDS", 0.1)
    node = Node()
    node.client.on_empty = lambda: time.sleep(0.2)
    assert seconds_of_a_turn(node) < 1


def test_after_an_empty_pull_that_was_not_held_the_node_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernode_main, "STOCK_PULL_SECONDS", 0.3)
    assert 0.3 <= seconds_of_a_turn(Node()) < 1


def test_a_message_whose_objects_cannot_be_pulled_is_left_and_the_node_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernode_main, "STOCK_PULL_SECONDS", 0.3)
    node = Node(message(1))
    node.client.objects.clear()
    assert seconds_of_a_turn(node) >= 0.3
    assert (node.client.sent, node.client.confirmed, node.session.is_receiving) == ([], [], False)


def test_a_key_without_tls_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def leave(code: int, message: str) -> None:  # Flower's would end the tests, too
        raise SystemExit(f"{code}: {message}")

    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(supernode_main, "flwr_exit", leave)
    key = tmp_path / "node.key"
    key.write_bytes(make_key())
    arguments = ["--insecure", "--auth-supernode-private-key", str(key)]
    with pytest.raises(SystemExit, match="303: .* needs TLS"):
        run_supernode(arguments, NodeSession(), at_exit=lambda: None)


def test_neither_insecure_nor_certificates_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises(SystemExit, match="--root-certificates"):
        run_supernode([], NodeSession(), at_exit=lambda: None)
