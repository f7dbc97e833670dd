import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bouquet.flower.delivery_tracker import DeliveryTracker
from bouquet.flower.holding import HoldClientInterceptor, hold, holding, requested_hold
from bouquet.flower.notifier import KeyedNotifier
from tests.unit.bouquet.flower.fakes import Caller, after


def seconds(work: Callable[[], Any]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def test_a_notification_wakes_a_thread_that_waits_for_its_key() -> None:
    notifier = KeyedNotifier()
    after(0.05, lambda: notifier.notify("a"))
    assert seconds(lambda: notifier.wait("a", 0, 5)) < 1


def test_a_notification_of_another_key_wakes_no_thread() -> None:
    notifier = KeyedNotifier()
    notifier.notify("b")
    assert notifier.wait("a", notifier.count("a"), 0.05) is False


def test_a_notification_before_the_wait_is_not_missed() -> None:
    notifier = KeyedNotifier()
    since = notifier.count("a")
    notifier.notify("a")
    assert notifier.wait("a", since, 5) is True


def test_closing_ends_every_wait() -> None:
    notifier = KeyedNotifier()
    after(0.05, notifier.close)
    assert seconds(lambda: notifier.wait("a", 0, 5)) < 1
    assert notifier.wait("a", 0, 5) is False


def test_a_signal_handler_may_close_it_in_a_thread_that_is_about_to_wait() -> None:
    notifier = KeyedNotifier()

    def interrupted() -> bool:  # called under the notifier's lock
        notifier.close()
        return False

    assert notifier.wait("a", 0, 5, wanted=interrupted) is False


def test_a_hold_ends_when_ready() -> None:
    notifier, done = KeyedNotifier(), threading.Event()

    def finish() -> None:
        done.set()
        notifier.notify("a")

    after(0.05, finish)
    assert seconds(lambda: hold(notifier, "a", done.is_set, 5, Caller())) < 1


def test_a_hold_ends_at_its_limit() -> None:
    assert 0.1 <= seconds(lambda: hold(KeyedNotifier(), "a", lambda: False, 0.1, Caller())) < 1


def test_a_caller_who_leaves_during_a_hold_gets_nothing() -> None:
    caller = Caller()
    after(0.05, caller.leave)
    with pytest.raises(ConnectionAbortedError):
        hold(KeyedNotifier(), "a", lambda: False, 5, caller)


def test_a_caller_who_left_before_a_message_came_does_not_take_it_along() -> None:
    caller = Caller()
    caller.leave()
    with pytest.raises(ConnectionAbortedError):
        hold(KeyedNotifier(), "a", lambda: True, 5, caller)


def new_tracker(expiry_seconds: float = 60) -> tuple[KeyedNotifier, DeliveryTracker]:
    notifier = KeyedNotifier()
    return notifier, DeliveryTracker(notifier, expiry_seconds)


def test_a_message_is_complete_once_its_last_object_has_arrived() -> None:
    notifier, tracker = new_tracker()
    tracker.announce("node", "m", {"x", "y"})
    tracker.object_arrived("x")
    assert (tracker.complete("node"), tracker.incomplete("node"), notifier.count("node")) == (set(), {"m"}, 0)
    tracker.object_arrived("y")
    assert (tracker.complete("node"), tracker.incomplete("node"), notifier.count("node")) == ({"m"}, set(), 1)


def test_a_message_without_missing_objects_is_complete_at_once() -> None:
    notifier, tracker = new_tracker()
    tracker.announce("node", "m", ())
    assert tracker.complete("node") == {"m"}
    assert notifier.count("node") == 1


def test_an_object_that_messages_share_completes_them_all() -> None:
    _, tracker = new_tracker()
    for node in ("a", "b"):
        tracker.announce(node, f"m-{node}", {"x"})
    tracker.object_arrived("x")
    assert tracker.complete("a") | tracker.complete("b") == {"m-a", "m-b"}


def test_delivered_messages_are_forgotten() -> None:
    _, tracker = new_tracker()
    tracker.announce("node", "m", {"x"})
    tracker.announce("node", "n", {"x"})
    tracker.forget("node", {"m"})
    tracker.object_arrived("x")
    assert tracker.complete("node") == {"n"}
    tracker.forget("node")
    assert tracker.complete("node") == set()


def test_a_message_whose_objects_never_arrive_is_given_up() -> None:
    _, tracker = new_tracker(expiry_seconds=0)
    tracker.announce("node", "m", {"x"})
    assert tracker.incomplete("node") == set()


def test_a_message_that_is_being_stored_is_neither_complete_nor_unknown() -> None:
    notifier, tracker = new_tracker()
    with tracker.expecting([("node", "m")]):
        assert (tracker.complete("node"), tracker.incomplete("node")) == (set(), {"m"})
        tracker.announce("node", "m", {"x"})
    assert (tracker.complete("node"), tracker.incomplete("node"), notifier.count("node")) == (set(), {"m"}, 0)
    tracker.object_arrived("x")
    assert tracker.complete("node") == {"m"}


def test_a_message_that_could_not_be_stored_blocks_nobody() -> None:
    notifier, tracker = new_tracker()
    with pytest.raises(RuntimeError), tracker.expecting([("node", "m")]):
        raise RuntimeError
    assert (tracker.complete("node"), tracker.incomplete("node"), notifier.count("node")) == (set(), set(), 1)


class Details(tuple[Any, ...]):
    metadata: tuple[tuple[str, str], ...] = ()

    def _replace(self, metadata: tuple[tuple[str, str], ...]) -> "Details":
        replaced = Details()
        replaced.metadata = metadata
        return replaced


def sent_metadata() -> tuple[tuple[str, str], ...]:
    details = HoldClientInterceptor().intercept_unary_unary(lambda details, _: details, Details(), None)
    assert isinstance(details, Details)
    return details.metadata


def test_a_hold_is_requested_within_the_block_only() -> None:
    with holding(3):
        metadata = sent_metadata()
    assert requested_hold(Caller(metadata), limit=10) == 3
    assert sent_metadata() == ()


@pytest.mark.parametrize(("value", "granted"), [("100", 10), ("-1", 0), ("soon", 0), ("2.5", 2.5)])
def test_a_hold_is_granted_within_limits(value: str, granted: float) -> None:
    assert requested_hold(Caller((("bouquet-hold", value),)), limit=10) == granted
