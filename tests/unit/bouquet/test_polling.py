import math
import time

import pytest

from bouquet.polling import poll_until


class Clock:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: fake.now)
    monkeypatch.setattr(time, "sleep", fake.sleep)
    return fake


def test_an_answer_that_is_true_at_once_costs_no_wait(clock: Clock) -> None:
    assert poll_until(lambda: "found", timeout_seconds=10, interval_seconds=1) == "found"
    assert clock.pauses == []


def test_the_first_true_answer_is_returned(clock: Clock) -> None:
    answers = iter([0, 0, 7, 8])
    assert poll_until(lambda: next(answers), timeout_seconds=10, interval_seconds=0.5) == 7
    assert clock.pauses == [0.5, 0.5]


def test_the_last_answer_is_returned_when_the_time_is_over(clock: Clock) -> None:
    calls: list[float] = []

    def look() -> list[float]:
        calls.append(clock.now)
        return []

    assert poll_until(look, timeout_seconds=2.5, interval_seconds=1) == []
    assert calls == [100, 101, 102, 102.5]


@pytest.mark.parametrize("timeout", [0, -1])
def test_it_looks_once_even_without_any_time(clock: Clock, timeout: float) -> None:
    calls: list[int] = []
    assert poll_until(lambda: calls.append(1), timeout_seconds=timeout, interval_seconds=1) is None
    assert (calls, clock.pauses) == ([1], [])


def test_an_infinite_timeout_never_ends_by_itself(clock: Clock) -> None:
    assert poll_until(lambda: clock.now >= 5000, timeout_seconds=math.inf, interval_seconds=60)
    assert clock.now >= 5000


def test_an_error_is_passed_on(clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError):
        poll_until(lambda: 1 / 0, timeout_seconds=1, interval_seconds=1)
