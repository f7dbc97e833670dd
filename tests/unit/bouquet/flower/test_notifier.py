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


def test_a_ring_wakes_who_waits_for_its_key() -> None:
    bell = KeyedNotifier()
    after(0.05, lambda: bell.notify("a"))
    assert seconds(lambda: bell.wait("a", 0, 5)) < 1


def test_a_ring_of_another_key_wakes_nobody() -> None:
    bell = KeyedNotifier()
    bell.notify("b")
    assert bell.wait("a", bell.count("a"), 0.05) is False


def test_a_ring_before_the_wait_is_not_missed() -> None:
    bell = KeyedNotifier()
    since = bell.count("a")
    bell.notify("a")
    assert bell.wait("a", since, 5) is True


def test_closing_ends_every_wait() -> None:
    bell = KeyedNotifier()
    after(0.05, bell.close)
    assert seconds(lambda: bell.wait("a", 0, 5)) < 1
    assert bell.wait("a", 0, 5) is False


def test_a_hold_ends_when_ready() -> None:
    bell, done = KeyedNotifier(), threading.Event()

    def finish() -> None:
        done.set()
        bell.notify("a")

    after(0.05, finish)
    assert seconds(lambda: hold(bell, "a", done.is_set, 5, Caller())) < 1


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


def mailboxes(patience: float = 60) -> tuple[KeyedNotifier, DeliveryTracker]:
    bell = KeyedNotifier()
    return bell, DeliveryTracker(bell, patience)


def test_a_message_is_complete_once_its_last_object_has_arrived() -> None:
    bell, mail = mailboxes()
    mail.announce("node", "m", {"x", "y"})
    mail.object_arrived("x")
    assert (mail.complete("node"), mail.incomplete("node"), bell.count("node")) == (set(), {"m"}, 0)
    mail.object_arrived("y")
    assert (mail.complete("node"), mail.incomplete("node"), bell.count("node")) == ({"m"}, set(), 1)


def test_a_message_without_missing_objects_is_complete_at_once() -> None:
    bell, mail = mailboxes()
    mail.announce("node", "m", ())
    assert mail.complete("node") == {"m"}
    assert bell.count("node") == 1


def test_an_object_that_messages_share_completes_them_all() -> None:
    _, mail = mailboxes()
    for node in ("a", "b"):
        mail.announce(node, f"m-{node}", {"x"})
    mail.object_arrived("x")
    assert mail.complete("a") | mail.complete("b") == {"m-a", "m-b"}


def test_what_has_been_handed_out_is_forgotten() -> None:
    _, mail = mailboxes()
    mail.announce("node", "m", {"x"})
    mail.announce("node", "n", {"x"})
    mail.forget("node", {"m"})
    mail.object_arrived("x")
    assert mail.complete("node") == {"n"}
    mail.forget("node")
    assert mail.complete("node") == set()


def test_a_message_whose_objects_never_come_is_given_up() -> None:
    _, mail = mailboxes(patience=0)
    mail.announce("node", "m", {"x"})
    assert mail.incomplete("node") == set()


def test_a_message_that_is_being_stored_is_neither_complete_nor_unknown() -> None:
    bell, mail = mailboxes()
    with mail.expecting([("node", "m")]):
        assert (mail.complete("node"), mail.incomplete("node")) == (set(), {"m"})
        mail.announce("node", "m", {"x"})
    assert (mail.complete("node"), mail.incomplete("node"), bell.count("node")) == (set(), {"m"}, 0)
    mail.object_arrived("x")
    assert mail.complete("node") == {"m"}


def test_a_message_that_could_not_be_stored_holds_nobody_up() -> None:
    bell, mail = mailboxes()
    with pytest.raises(RuntimeError), mail.expecting([("node", "m")]):
        raise RuntimeError
    assert (mail.complete("node"), mail.incomplete("node"), bell.count("node")) == (set(), set(), 1)


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


def test_a_hold_is_asked_for_within_the_block_only() -> None:
    with holding(3):
        asked = sent_metadata()
    assert requested_hold(Caller(asked), limit=10) == 3
    assert sent_metadata() == ()


@pytest.mark.parametrize(("value", "granted"), [("100", 10), ("-1", 0), ("soon", 0), ("2.5", 2.5)])
def test_a_hold_is_granted_within_limits(value: str, granted: float) -> None:
    assert requested_hold(Caller((("bouquet-hold", value),)), limit=10) == granted
