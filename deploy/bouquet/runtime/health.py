"""Health of a SuperLink or SuperNode: ready while both Flower and the executor are up."""

import threading

from bouquet.contract.readiness import Readiness


class Health:
    """Declares readiness while Flower and the executor are both up, and withdraws it otherwise. Thread-safe."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._lock = threading.Lock()
        self._up = {"flower": False, "executor": False}

    def set_flower(self, up: bool) -> None:
        """Set whether Flower is up: the SuperLink serves, or the SuperLink counts this SuperNode as online."""
        self._set("flower", up)

    def set_executor(self, up: bool) -> None:
        """Set whether the executor can run a task."""
        self._set("executor", up)

    def _set(self, part: str, up: bool) -> None:
        with self._lock:
            self._up[part] = up
            if all(self._up.values()):
                self._readiness.declare()
            else:
                self._readiness.withdraw()
