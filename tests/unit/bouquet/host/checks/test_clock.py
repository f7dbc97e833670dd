"""This machine's clock."""

from collections.abc import Callable

import pytest

from bouquet.errors import HostError
from bouquet.host.checks.clock import clock, clock_is_synchronized
from bouquet.host.hub import HubAnswer


def hub(ahead: float | None = None, problem: str = "") -> Callable[[], HubAnswer]:
    """Return the probe of a hub whose clock differs from this one's."""
    return lambda: HubAnswer(problem, ahead)


def test_a_clock_that_the_superlink_would_refuse_fails() -> None:
    assert clock(hub(1.0)) == "within 3 s of the hub's"
    assert clock(hub(-60.0)) == "60 s behind the hub's"
    with pytest.raises(HostError, match="the clock is 40 s ahead of the hub's; synchronize it"):
        clock(hub(40.0))
    with pytest.raises(HostError, match="the clock is 300 s behind the hub's; synchronize it"):
        clock(hub(-300.0))


def test_without_the_hub_the_kernel_says_whether_the_clock_is_synchronized() -> None:
    assert clock(hub(None), synchronized=lambda: True).endswith("UTC, synchronized by NTP")
    assert "which nodes on other machines need" in clock(hub(None), synchronized=lambda: False)
    assert clock_is_synchronized() in (True, False)
