"""The replies that a ServerApp waits for."""

import time
from pathlib import Path
from typing import Any

import pytest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest

from bouquet.flower.holding import HOLD_HEADER
from bouquet.flower.superlink_events import SuperLinkEvents, replies_key
from bouquet.flower.superlink_runtime import EventRuntimeServicer
from tests.unit.bouquet.flower.fakes import Caller, Traffic, after

HOLD_SECONDS = 1.0


class Run:
    """The Runtime API of a SuperLink with one run and one node."""

    def __init__(self, folder: Path) -> None:
        self.traffic = Traffic(folder / "superlink.db")
        self.events = SuperLinkEvents()
        self.servicer = EventRuntimeServicer(self.traffic.states, self.traffic.objects, self.events)

    def wait(self, message_id: str) -> tuple[list[str], float]:
        """Wait for the reply to a message; return the errors that came and how long it took, in seconds."""
        start = time.monotonic()
        caller = Caller(((HOLD_HEADER, str(HOLD_SECONDS)),))
        response = self.servicer.PullMessages(PullAppMessagesRequest(message_ids=[message_id]), caller)
        return [reply.error.reason for reply in response.messages_list], time.monotonic() - start


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    found = Run(tmp_path)
    (task,) = found.traffic.state.get_tasks()
    for module in ("bouquet.flower.superlink_runtime", "flwr.superlink.servicer.runtime.runtime_servicer"):
        monkeypatch.setattr(f"{module}.get_authenticated_task", lambda: task)
    return found


def test_without_a_reply_the_call_is_held(run: Run) -> None:
    errors, seconds = run.wait(run.traffic.send().object_id)
    assert (errors, seconds >= HOLD_SECONDS) == ([], True)


def test_a_reply_ends_the_hold(run: Run) -> None:
    message = run.traffic.send()

    def reply() -> None:
        run.traffic.reply(message)
        run.events.deliveries.announce(replies_key(run.traffic.run_id), message.object_id, ())

    after(0.1, reply)
    errors, seconds = run.wait(message.object_id)
    assert (errors, seconds < HOLD_SECONDS) == ([""], True)


def test_a_node_that_was_offline_before_its_message_was_sent_is_answered_for_at_once(run: Run) -> None:
    run.traffic.state.deactivate_node(run.traffic.node_id)
    errors, seconds = run.wait(run.traffic.send().object_id)
    assert len(errors) == 1
    assert "Node Unavailable" in errors[0]
    assert seconds < HOLD_SECONDS


def test_where_a_reply_is_complete_the_nodes_of_other_messages_are_not_looked_at(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [run.traffic.send(number) for number in range(3)]
    run.traffic.reply(messages[0])
    run.events.deliveries.announce(replies_key(run.traffic.run_id), messages[0].object_id, ())
    looked_at: list[set[str]] = []
    pull = run.traffic.state.messages.get_message_res

    def recorded_pull(message_ids: set[str]) -> Any:
        looked_at.append(set(message_ids))
        return pull(message_ids)

    monkeypatch.setattr(run.traffic.state.messages, "get_message_res", recorded_pull)
    request = PullAppMessagesRequest(message_ids=[message.object_id for message in messages])
    (reply,) = run.servicer.PullMessages(request, Caller()).messages_list
    assert reply.metadata.reply_to_message_id == messages[0].object_id
    assert looked_at == [{messages[0].object_id}]
