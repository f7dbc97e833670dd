import threading
import time
from contextlib import suppress

import pytest

from bouquet.flower import liveness as presence
from bouquet.flower.holding import hold
from bouquet.flower.liveness import Liveness
from bouquet.flower.notifier import KeyedNotifier
from tests.unit.bouquet.flower.fakes import Caller, after

NODE = 7


class Watch:
    """A presence that tells who has gone."""

    def __init__(self) -> None:
        self.bell = KeyedNotifier()
        self.gone = threading.Event()
        self.presence = Liveness(self.bell, lambda node_id: self.gone.set())

    def hold(self, caller: Caller, seconds: float = 5) -> None:
        """A call that is held until its caller leaves, it is to be answered, or time is up."""
        with suppress(ConnectionAbortedError), self.presence.held(NODE, "key", caller) as challenged:
            hold(self.bell, "key", challenged, seconds, caller)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setattr(presence, "GRACE", 0.2)
    monkeypatch.setattr(presence, "CHALLENGE", 0.5)
    return Watch()


def test_a_node_that_loses_its_connection_and_does_not_call_again_has_gone(watch: Watch) -> None:
    caller = Caller()
    after(0.05, caller.leave)
    watch.hold(caller)
    assert watch.gone.wait(5)


def test_a_node_that_calls_again_has_not_gone(watch: Watch) -> None:
    caller = Caller()
    after(0.05, caller.leave)
    watch.hold(caller)
    watch.presence.seen(NODE)
    assert not watch.gone.wait(0.5)


def test_a_node_whose_call_was_answered_may_be_silent(watch: Watch) -> None:
    watch.hold(Caller(), seconds=0.05)
    assert not watch.gone.wait(0.5)


def test_a_node_of_which_another_call_is_held_has_not_gone(watch: Watch) -> None:
    works, leaves = Caller(), Caller()
    held = threading.Thread(target=watch.hold, args=(works, 1.0))
    held.start()
    after(0.05, leaves.leave)
    watch.hold(leaves)
    assert not watch.gone.wait(0.5)
    held.join()


def test_who_lost_its_connection_is_known_not_to_answer(watch: Watch) -> None:
    caller = Caller()
    after(0.05, caller.leave)
    watch.hold(caller)
    start = time.monotonic()
    assert not watch.presence.answers(NODE)
    assert time.monotonic() - start < presence.CHALLENGE


def test_who_is_silent_is_challenged_and_does_not_answer(watch: Watch) -> None:
    held = threading.Thread(target=watch.hold, args=(Caller(),))  # of a process that was cut off
    held.start()
    while not watch.bell._waiting:
        time.sleep(0.01)
    assert not watch.presence.answers(NODE)
    held.join()


def test_who_is_alive_answers_the_challenge(watch: Watch) -> None:
    def live() -> None:
        watch.hold(Caller())  # ends with the challenge
        watch.hold(Caller(), seconds=0.05)

    living = threading.Thread(target=live)
    living.start()
    while not watch.bell._waiting:
        time.sleep(0.01)
    assert watch.presence.answers(NODE)
    living.join()
