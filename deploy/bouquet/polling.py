"""The one way to wait for a condition that sends no event."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def poll_until(look: Callable[[], T], timeout_seconds: float, interval_seconds: float) -> T:
    """Call `look` until its answer is true or the timeout is over, and return its last answer.

    Args:
        look: Called at once, and then after each interval. It is called at least once.
        timeout_seconds: No call starts later than this; `math.inf` for no timeout.
        interval_seconds: Pause between two calls. The last pause ends with the timeout.

    Returns:
        The last answer of `look`. It is false only after a timeout.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (answer := look()) and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(interval_seconds, left))
    return answer
