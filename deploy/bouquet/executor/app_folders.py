"""The working directories of a node's ClientApps: one for each run, so that runs never share files."""

import shutil
import threading
from pathlib import Path


class AppFolders:
    """A folder for each run. The workers of a run share it, and it is removed when the run has ended.

    Args:
        base: Where the folders are. It belongs to this object alone: what is there already is removed.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._ended: set[int] = set()
        self._lock = threading.Lock()
        self.remove_all()

    def of(self, run_id: int) -> Path:
        """Return the folder of a run. Its first worker creates it."""
        return self._base / str(run_id)

    def run_ended(self, run_id: int) -> None:
        """Have the folder of a run removed by the next call of `remove_unused`."""
        with self._lock:
            self._ended.add(run_id)

    def remove_unused(self, in_use: set[int]) -> None:
        """Remove the folders of runs that have ended.

        Args:
            in_use: Runs whose processes are still there. Their folders stay until a later call.
        """
        with self._lock:
            unused = self._ended - in_use
            self._ended -= unused
        for run_id in unused:
            shutil.rmtree(self.of(run_id), ignore_errors=True)

    def remove_all(self) -> None:
        """Remove the folders of all runs."""
        shutil.rmtree(self._base, ignore_errors=True)
