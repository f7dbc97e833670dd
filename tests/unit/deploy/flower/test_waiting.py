import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from deploy.flower.waiting import Bell, HoldClientInterceptor, Mailboxes, hold_asked, holding


class Caller:
    """A `grpc.ServicerContext` as far as a hold needs one."""

    def __init__(self, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.active = True
        self.callbacks: list[Callable[[], None]] = []
        self.metadata = metadata

    def is_active(self) -> bool:
        return self.active

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return self.active

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata

    def abort(self, code: object, details: str) -> None:
        raise ConnectionAbortedError(details)

    def leave(self) -> None:
        self.active = False
        for callback in self.callbacks:
            callback()


def seconds(work: Callable[[], Any]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def after(delay: float, work: Callable[[], Any]) -> None:
    threading.Timer(delay, work).start()


def test_a_ring_wakes_who_waits_for_its_key() -> None:
    bell = Bell()
    after(0.05, lambda: bell.ring("a"))
    assert seconds(lambda: bell.wait("a", 0, 5)) < 1


def test_a_ring_of_another_key_wakes_nobody() -> None:
    bell = Bell()
    bell.ring("b")
    assert bell.wait("a", bell.heard("a"), 0.05) is False


def test_a_ring_before_the_wait_is_not_missed() -> None:
    bell = Bell()
    since = bell.heard("a")
    bell.ring("a")
    assert bell.wait("a", since, 5) is True


def test_closing_ends_every_wait() -> None:
    bell = Bell()
    after(0.05, bell.close)
    assert seconds(lambda: bell.wait("a", 0, 5)) < 1
    assert bell.wait("a", 0, 5) is False


def test_a_hold_ends_when_ready() -> None:
    bell, done = Bell(), threading.Event()

    def finish() -> None:
        done.set()
        bell.ring("a")

    after(0.05, finish)
    assert seconds(lambda: bell.hold("a", done.is_set, 5, Caller())) < 1


def test_a_hold_ends_at_its_limit() -> None:
    assert 0.1 <= seconds(lambda: Bell().hold("a", lambda: False, 0.1, Caller())) < 1


def test_a_caller_who_leaves_during_a_hold_gets_nothing() -> None:
    caller = Caller()
    after(0.05, caller.leave)
    with pytest.raises(ConnectionAbortedError):
        Bell().hold("a", lambda: False, 5, caller)


def test_a_caller_who_left_before_a_message_came_does_not_take_it_along() -> None:
    caller = Caller()
    caller.leave()
    with pytest.raises(ConnectionAbortedError):
        Bell().hold("a", lambda: True, 5, caller)


def mailboxes(patience: float = 60) -> tuple[Bell, Mailboxes]:
    bell = Bell()
    return bell, Mailboxes(bell, patience)


def test_a_message_is_complete_once_its_last_object_has_arrived() -> None:
    bell, mail = mailboxes()
    mail.announce("node", "m", {"x", "y"})
    mail.arrive("x")
    assert (mail.complete("node"), mail.incomplete("node"), bell.heard("node")) == (set(), {"m"}, 0)
    mail.arrive("y")
    assert (mail.complete("node"), mail.incomplete("node"), bell.heard("node")) == ({"m"}, set(), 1)


def test_a_message_without_missing_objects_is_complete_at_once() -> None:
    bell, mail = mailboxes()
    mail.announce("node", "m", ())
    assert mail.complete("node") == {"m"}
    assert bell.heard("node") == 1


def test_an_object_that_messages_share_completes_them_all() -> None:
    _, mail = mailboxes()
    for node in ("a", "b"):
        mail.announce(node, f"m-{node}", {"x"})
    mail.arrive("x")
    assert mail.complete("a") | mail.complete("b") == {"m-a", "m-b"}


def test_what_has_been_handed_out_is_forgotten() -> None:
    _, mail = mailboxes()
    mail.announce("node", "m", {"x"})
    mail.announce("node", "n", {"x"})
    mail.forget("node", {"m"})
    mail.arrive("x")
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
    assert (mail.complete("node"), mail.incomplete("node"), bell.heard("node")) == (set(), {"m"}, 0)
    mail.arrive("x")
    assert mail.complete("node") == {"m"}


def test_a_message_that_could_not_be_stored_holds_nobody_up() -> None:
    bell, mail = mailboxes()
    with pytest.raises(RuntimeError), mail.expecting([("node", "m")]):
        raise RuntimeError
    assert (mail.complete("node"), mail.incomplete("node"), bell.heard("node")) == (set(), set(), 1)


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
    assert hold_asked(Caller(asked), limit=10) == 3
    assert sent_metadata() == ()


@pytest.mark.parametrize(("value", "granted"), [("100", 10), ("-1", 0), ("soon", 0), ("2.5", 2.5)])
def test_a_hold_is_granted_within_limits(value: str, granted: float) -> None:
    assert hold_asked(Caller((("bouquet-hold", value),)), limit=10) == granted
