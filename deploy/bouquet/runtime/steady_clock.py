"""Sees when the wall clock jumps: the machine slept, this process was frozen, or someone set the clock.

Flower keeps deadlines as times of the wall clock: a node is online, and a task alive, until a time that each heartbeat
moves on. A jump of the wall clock would pass such a deadline although nobody missed a heartbeat. So those who keep
deadlines move them by what the clock has jumped before they look at them.

It takes one thread, which reads the wall clock once a second. If more or less than a second has passed between two
readings, then the process did not run, or the clock was set. To the deadlines it makes no difference which.
"""

import threading
import time
from collections.abc import Callable
from functools import cache

TICK_SECONDS = 1.0
LATE_SECONDS = 3.0
"""A thread of a process that runs may be so late on a busy machine. A longer delay is a jump, as is any step back."""
BACK_SECONDS = 0.5
"""Smaller steps back are those of a clock that is being adjusted."""


class SteadyClock:
    """The wall clock without its jumps."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """Start at the time of the wall clock.

        Args:
            wall: Returns the time of the wall clock, in seconds.
        """
        self._wall = wall
        self._lock = threading.Lock()
        self._last = wall()
        self._jumped = 0.0

    def jumped(self) -> float:
        """Return how far the wall clock has jumped since this object exists, in seconds; negative: backwards."""
        return self._read()[1]

    def time(self) -> float:
        """Return the time since the epoch in seconds, without the jumps since this object exists."""
        wall, jumped = self._read()
        return wall - jumped

    def run(self) -> None:
        """Read the wall clock once a second, for ever."""
        while True:
            time.sleep(TICK_SECONDS)
            self._read()

    def _read(self) -> tuple[float, float]:
        with self._lock:
            now = self._wall()
            passed = now - self._last
            if passed > TICK_SECONDS + LATE_SECONDS:
                self._jumped += passed - TICK_SECONDS
            elif passed < -BACK_SECONDS:
                self._jumped += passed
            self._last = now
            return now, self._jumped


class Deadlines:
    """Tells the keeper of some deadlines by how much to move them.

    The keeper calls `shift` before each look at its deadlines, and at least once after it set them.
    """

    def __init__(self, clock: SteadyClock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._jumped = clock.jumped()

    def shift(self, move: Callable[[float], None]) -> None:
        """Call `move` with the seconds of the jumps since the last call, if there were any."""
        with self._lock:
            seconds = self._clock.jumped() - self._jumped
            if seconds:
                move(seconds)
                self._jumped += seconds


@cache
def process_clock() -> SteadyClock:
    """Return this process's clock, which runs in a thread from the first call on."""
    clock = SteadyClock()
    threading.Thread(target=clock.run, name="steady-clock", daemon=True).start()
    return clock
