"""The one way to wait for something that sends no event."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def poll_until(look: Callable[[], T], timeout_seconds: float, interval_seconds: float) -> T:
    """Return what `look` returns, as soon as that is true, or its last answer when the time is over.

    Args:
        look: Called at once, then after each interval.
        timeout_seconds: When to give up. `look` is called at least once.
        interval_seconds: Pause between two calls.

    Returns:
        The last answer of `look`: false only after a timeout.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(interval_seconds)
    return found
