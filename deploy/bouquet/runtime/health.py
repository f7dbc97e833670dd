"""Health of a SuperLink or SuperNode: ready while both Flower and the executor are up, and neither hangs."""

import threading
import time
from collections.abc import Callable

from bouquet.contract.readiness import PULSE_SECONDS, Readiness
from bouquet.runtime.steady_clock import SteadyClock, process_clock


class Health:
    """Declares readiness while Flower and the executor are both up, and withdraws it otherwise. Thread-safe."""

    def __init__(self, readiness: Readiness, clock: SteadyClock | None = None) -> None:
        self._readiness = readiness
        self._lock = threading.Lock()
        self._up = {"flower": False, "executor": False}
        self._clock = clock or process_clock()
        self._jumped = self._clock.jumped()

    def set_flower(self, up: bool) -> None:
        """Set whether Flower is up: the SuperLink serves, or the SuperLink counts this SuperNode as online."""
        self._set("flower", up)

    def set_executor(self, up: bool) -> None:
        """Set whether the executor can run a task."""
        self._set("executor", up)

    def pulse(self) -> None:
        """Show that nothing hangs; to be called every `PULSE_SECONDS`.

        Docker may have taken the container for unhealthy while it was frozen, so that it is told again afterwards.
        """
        with self._lock:
            jumped = self._clock.jumped()
            if jumped == self._jumped:
                self._readiness.pulse()
            else:
                self._jumped = jumped
                self._readiness.announce()

    def _set(self, part: str, up: bool) -> None:
        with self._lock:
            self._up[part] = up
            if all(self._up.values()):
                self._readiness.declare()
            else:
                self._readiness.withdraw()


def keep_pulsing(pulse: Callable[[], None], is_moving: Callable[[], bool] = lambda: True) -> None:
    """Call `pulse` every `PULSE_SECONDS`, in a thread, as long as `is_moving` returns true. It may also block."""

    def keep_on() -> None:
        while True:
            if is_moving():
                pulse()
            time.sleep(PULSE_SECONDS)

    threading.Thread(target=keep_on, name="pulse", daemon=True).start()
