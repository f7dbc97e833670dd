"""A run's folder among the results: the ServerApp's working directory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from bouquet.errors import RunError, SettingError
from bouquet.files import write_atomically

SETTING = "BOUQUET_RESULTS_DIR"
LATEST = "latest"
"""The link to the newest run's folder."""


class RunFolder:
    """``<results>/<run-id>/``, and the link ``<results>/latest`` to it.

    Args:
        results: The folder for the results of all runs.
        run_id: The run's id.

    Attributes:
        path: The run's folder.

    Raises:
        SettingError: The folder cannot be created.
    """

    def __init__(self, results: Path, run_id: int) -> None:
        self._results = results.absolute()
        self.path = self._results / str(run_id)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            link = self._results / f".{LATEST}-{run_id}"
            link.unlink(missing_ok=True)
            link.symlink_to(str(run_id))
            link.replace(self._results / LATEST)
        except OSError as error:
            raise self.not_writable(error) from error

    def not_writable(self, error: OSError) -> SettingError:
        """Return the error that names the setting, for a folder that cannot be written from the start."""
        hint = f"set {SETTING} to a folder that the ServerApp's user can write to"
        return SettingError(SETTING, self._results, f"cannot be written ({_reason(error)})", hint)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, completely or not at all.

        Raises:
            RunError: The disk is full, or the folder is not writable any more.
        """
        try:
            write_atomically(self.path / name, content)
        except OSError as error:
            hint = f"free some disk space, or set {SETTING} to another folder"
            raise RunError(f"{self.path / name}: cannot be written ({_reason(error)})", hint) from error

    def enter(self) -> None:
        """Make the run's folder the working directory of this process."""
        os.chdir(self.path)

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        with contextlib.suppress(OSError):
            return (self.path / name).exists()
        return False


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
