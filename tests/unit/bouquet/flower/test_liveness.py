import threading
import time
from contextlib import suppress

import pytest

from bouquet.flower import liveness
from bouquet.flower.liveness import Liveness
from bouquet.flower.notifier import CallerGoneError, KeyedNotifier
from tests.unit.bouquet.flower.fakes import Caller, after

NODE = 7


class Watch:
    """A `Liveness` that records whether the node is gone."""

    def __init__(self) -> None:
        self.notifier = KeyedNotifier()
        self.gone = threading.Event()
        self.liveness = Liveness(self.notifier, lambda node_id: self.gone.set())

    def hold(self, caller: Caller, seconds: float = 5) -> None:
        """A call that is held until its caller leaves, it has to be answered, or time is up."""
        with suppress(CallerGoneError), self.liveness.held(NODE, "key", caller) as is_challenged:
            self.notifier.wait_until("key", is_challenged, seconds, caller)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setattr(liveness, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(liveness, "CHALLENGE_SECONDS", 0.5)
    return Watch()


def test_a_node_that_loses_its_connection_and_does_not_call_again_is_gone(watch: Watch) -> None:
    caller = Caller()
    after(0.05, caller.leave)
    watch.hold(caller)
    assert watch.gone.wait(5)


def test_a_node_that_calls_again_is_not_gone(watch: Watch) -> None:
    caller = Caller()
    after(0.05, caller.leave)
    watch.hold(caller)
    watch.liveness.seen(NODE)
    assert not watch.gone.wait(0.5)


def test_a_node_whose_call_was_answered_may_be_silent(watch: Watch) -> None:
    watch.hold(Caller(), seconds=0.05)
    assert not watch.gone.wait(0.5)


def test_a_node_with_another_held_call_is_not_gone(watch: Watch) -> None:
    works, leaves = Caller(), Caller()
    held = threading.Thread(target=watch.hold, args=(works, 1.0))
    held.start()
    after(0.05, leaves.leave)
    watch.hold(leaves)
    assert not watch.gone.wait(0.5)
    held.join()


def test_a_node_that_lost_its_connection_is_not_waited_for(watch: Watch) -> None:
    caller = Caller()
    after(0.05, caller.leave)
    watch.hold(caller)
    start = time.monotonic()
    assert not watch.liveness.answers(NODE)
    assert time.monotonic() - start < liveness.CHALLENGE_SECONDS


def test_a_process_that_was_cut_off_does_not_answer_the_challenge(watch: Watch) -> None:
    held = threading.Thread(target=watch.hold, args=(Caller(),))
    held.start()
    while not watch.notifier._waiting:
        time.sleep(0.01)
    assert not watch.liveness.answers(NODE)
    held.join()


def test_a_process_that_is_alive_answers_the_challenge(watch: Watch) -> None:
    def live() -> None:
        watch.hold(Caller())  # ends with the challenge
        watch.hold(Caller(), seconds=0.05)

    living = threading.Thread(target=live)
    living.start()
    while not watch.notifier._waiting:
        time.sleep(0.01)
    assert watch.liveness.answers(NODE)
    living.join()
