"""What a SuperNode makes of the answers to its heartbeats."""

import threading
import time
from collections.abc import Callable

import grpc
import pytest

from bouquet.flower import heartbeat
from bouquet.flower.heartbeat import Heartbeat


class Failure(grpc.RpcError):  # type: ignore[misc] # grpc has no types
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "disk full"


def started(send: Callable[[], bool]) -> tuple[Heartbeat, list[str]]:
    """Start heartbeats; return them and what they tell."""
    told: list[str] = []
    sender = Heartbeat(send, lambda: told.append("online"), told.append)
    sender.start()
    return sender, told


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_acknowledged_heartbeat_means_online() -> None:
    sender, told = started(lambda: True)
    wait_for(lambda: told == ["online"])
    sender.stop()


def test_an_error_of_the_superlink_means_offline_and_the_next_heartbeat_follows_soon() -> None:
    answers = iter([Failure(grpc.StatusCode.INTERNAL), None])

    def send() -> bool:
        if (answer := next(answers)) is not None:
            raise answer
        return True

    sender, told = started(send)
    wait_for(lambda: len(told) == 2)
    assert told == ["heartbeat failed: INTERNAL: disk full", "online"]
    sender.stop()


@pytest.mark.parametrize(("unanswered", "expected"), [(0.0, "the SuperLink does not answer heartbeats"), (60.0, "")])
def test_heartbeats_without_an_answer_mean_offline_only_after_a_while(
    unanswered: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "UNANSWERED_SECONDS", unanswered)
    sent = threading.Event()

    def send() -> bool:
        if sent.is_set():
            return True
        sent.set()
        raise Failure(grpc.StatusCode.UNAVAILABLE)

    sender, told = started(send)
    wait_for(lambda: "online" in told)
    assert told[:-1] == ([expected] if expected else [])
    sender.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_node_that_the_superlink_does_not_know_is_offline_and_sends_no_more() -> None:
    sender, told = started(lambda: False)
    wait_for(lambda: not sender.is_running)
    assert told == ["Heartbeat failed unexpectedly. The SuperLink does not recognize this SuperNode."]
