"""When an error gets the hint that the app may run only once per process."""

import pytest

from bouquet.flower.message_history import MessageHistory

HINT = "set EXECUTOR_MESSAGES=1"


def after(*kinds: str) -> MessageHistory:
    history = MessageHistory()
    for kind in kinds:
        history.succeeded(kind)
    return history


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("context has already been set"),
        RuntimeError("Physical devices cannot be modified after being initialized"),
        RuntimeError("Intra op parallelism cannot be modified after initialization."),
        RuntimeError("must be called before any op has been initialized"),
        RuntimeError("threads can only be started once"),
        ValueError("Logger is already configured"),
        AssertionError("main() may only be called once"),
    ],
)
def test_a_typical_error_after_a_success_gets_the_hint(error: Exception) -> None:
    assert HINT in after("train").failed("evaluate", error)
    assert HINT in after(*["train"] * 9).failed("train", error)
    assert MessageHistory().failed("train", error) == "", "the first message of the process"


def test_any_error_of_the_second_message_of_a_kind_gets_the_hint_once() -> None:
    error = ZeroDivisionError("division by zero")
    history = after("train", "evaluate")
    assert history.failed("train", error).startswith("This process had served 2 messages before. ")
    assert history.failed("train", error) == ""
    assert after("train").failed("train", error).startswith("This process had served 1 message before. ")


def test_an_ordinary_error_at_another_time_gets_no_hint() -> None:
    error = ValueError("shapes (3,) and (4,) not aligned")
    assert after().failed("train", error) == ""
    assert after("train").failed("evaluate", error) == "", "evaluate has never worked"
    assert after("train", "train").failed("train", error) == "", "train has worked twice"


def test_a_process_that_has_only_failed_gives_no_hint() -> None:
    history = MessageHistory()
    assert history.failed("train", RuntimeError("already set")) == ""
    assert history.failed("train", RuntimeError("already set")) == ""
