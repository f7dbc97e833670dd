"""How long to wait before a process that has ended is restarted: not at all after a long life, else twice as long."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class RestartPolicy:
    """The pause before each restart of one process: it doubles while the process keeps ending soon after its start.

    Attributes:
        first_pause_seconds: The pause after the first short life.
        longest_pause_seconds: The pause stops doubling here.
        steady_seconds: A process that lived longer than this is restarted at once, and the pause starts over.
        clock: A monotonic clock, in seconds.
    """

    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 30.0
    steady_seconds: float = 60.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _pause_seconds: float = field(default=0.0, init=False, repr=False)
    _started: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.note_start()

    def note_start(self) -> None:
        """Note that the process starts now."""
        self._started = self.clock()

    def next_pause(self) -> float:
        """Return the seconds to wait before restarting the process, which has just ended."""
        if self.clock() - self._started > self.steady_seconds:
            self._pause_seconds = 0.0
        else:
            doubled = max(self.first_pause_seconds, self._pause_seconds * 2)
            self._pause_seconds = min(doubled, self.longest_pause_seconds)
        return self._pause_seconds
