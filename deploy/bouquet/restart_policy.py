"""When a process that has ended may start again: at once after a long life, else after a pause that doubles each time."""

import time
from dataclasses import dataclass, field


@dataclass
class RestartPolicy:
    """The pause before each restart of one process, as Docker has it for `restart: unless-stopped`.

    Attributes:
        first_pause: Seconds before the restart that follows the first short life.
        longest_pause: Seconds at most.
        steady_seconds: A process that lived longer than this started well: it restarts at once.
    """

    first_pause: float = 1.0
    longest_pause: float = 30.0
    steady_seconds: float = 60.0
    _pause: float = field(default=0.0, init=False, repr=False)
    _started: float = field(default_factory=time.monotonic, init=False, repr=False)

    def note_start(self) -> None:
        """Note that the process starts now."""
        self._started = time.monotonic()

    def next_pause(self) -> float:
        """Return the seconds to wait before the process, which has just ended, starts again."""
        if time.monotonic() - self._started > self.steady_seconds:
            self._pause = 0.0
        else:
            self._pause = min(max(self.first_pause, self._pause * 2), self.longest_pause)
        return self._pause
