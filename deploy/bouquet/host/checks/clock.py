"""This machine's clock."""

import ctypes
from collections.abc import Callable
from datetime import UTC, datetime

from bouquet.errors import HostError
from bouquet.host.hub import HubAnswer

MAX_CLOCK_AHEAD_SECONDS, MAX_CLOCK_BEHIND_SECONDS = 3.0, 200.0
"""Limits for the clock, with a margin: the SuperLink refuses a SuperNode that is 5 s ahead or 305 s behind."""
TIME_ERROR = 5
"""adjtimex(2): nothing synchronizes the clock."""


def clock(ask_hub: Callable[[], HubAnswer], synchronized: Callable[[], bool] | None = None) -> str:
    """Check the clock. The SuperLink refuses nodes whose clock is wrong, and certificates have an end.

    Args:
        ask_hub: Asks the hub for its clock.
        synchronized: Whether NTP synchronizes this clock, in case the hub does not answer; None to ask the kernel.
    """
    ahead = ask_hub().clock_ahead_seconds
    if ahead is None:
        kernel = (synchronized or clock_is_synchronized)()
        state = "synchronized by NTP" if kernel else "not synchronized by NTP, which nodes on other machines need"
        return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, {state}"
    if not -MAX_CLOCK_BEHIND_SECONDS < ahead < MAX_CLOCK_AHEAD_SECONDS:
        raise HostError(
            f"the clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the hub's",
            "synchronize it: timedatectl set-ntp true",
        )
    if abs(ahead) <= MAX_CLOCK_AHEAD_SECONDS:
        return f"within {MAX_CLOCK_AHEAD_SECONDS:g} s of the hub's"
    return f"{-ahead:.0f} s behind the hub's"


def clock_is_synchronized() -> bool:
    """Whether the kernel reports that something, such as NTP, synchronizes its clock."""
    timex = ctypes.create_string_buffer(512)  # a struct timex of zeros asks without a change
    return ctypes.CDLL(None).adjtimex(timex) not in (-1, TIME_ERROR)
