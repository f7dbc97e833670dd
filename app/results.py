"""A run's results: ``<results>/<run-id>/`` with the model, the metrics and a plot, and ``<results>/latest``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from app.dataset import Dataset
from app.exceptions import RunError, SettingError
from app.participants import Participants
from app.strategy import Round

SETTING = "BOUQUET_RESULTS_DIR"


class Results:
    """A run's results folder, and the contents of its ``metrics.json``.

    The folder and a first ``metrics.json`` are written before training, so that a folder that is not writable fails the
    run before any work is done. ``BOUQUET_RESULTS_DIR`` is the parent folder. The default is ``results`` in the
    ServerApp's current directory. In Flower's simulation, that is the directory in which the first `flwr run` started
    the local SuperLink.

    Args:
        run_id: The run's id.
        run_config: The run-config as Flower passes it.
        environ: The environment: ``BOUQUET_RESULTS_DIR``.

    Attributes:
        dataset: The chosen dataset; None until it is chosen.
        participants: The SuperNodes that take part; None until the fleet is complete.
        rounds: The rounds so far.
        seconds: Duration of the strategy, in seconds.

    Raises:
        SettingError: The folder cannot be created or is not writable.
    """

    def __init__(self, run_id: int, run_config: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> None:
        self.run_id, self.run_config = run_id, dict(run_config)
        self.dataset: Dataset | None = None
        self.participants: Participants | None = None
        self.rounds: list[Round] = []
        self.seconds = 0.0
        self.root = Path(environ.get(SETTING) or "results").absolute()
        self.folder = self.root / str(run_id)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(
                "metrics.json", lambda file: file.write_text(self._metrics("failed", "the run was interrupted"))
            )
            self._update_latest()
        except OSError as error:
            hint = f"set {SETTING} to a folder that the ServerApp's user can write to"
            raise SettingError(SETTING, self.root, f"cannot be written ({_reason(error)})", hint) from error

    def complete(self) -> None:
        """Write ``metrics.json`` for a run that completed."""
        self.save("metrics.json", lambda file: file.write_text(self._metrics("completed", None)))

    def fail(self, error: Exception) -> None:
        """Write ``metrics.json`` for a run that failed, with the error and the rounds so far."""
        self.save("metrics.json", lambda file: file.write_text(self._metrics("failed", str(error))))

    def save(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a file into the results folder, completely or not at all.

        Args:
            name: Name of the file.
            write: Writes the file at the path that it is called with.

        Raises:
            RunError: The disk is full, or the folder is not writable any more.
        """
        try:
            self._write(name, write)
        except OSError as error:
            hint = f"free some disk space, or set {SETTING} to another folder"
            raise RunError(f"{self.folder / name}: cannot be written ({_reason(error)}); {hint}") from error

    def _metrics(self, status: Literal["completed", "failed"], error: str | None) -> str:
        dataset = self.dataset and {"name": self.dataset.name, "source": self.dataset.source}
        metrics = {
            "run-id": str(self.run_id),  # 64 bits: too large for a JSON number
            "status": status,
            "error": error,
            "versions": _versions(),
            "dataset": dataset,
            "run-config": self.run_config,
            "num-supernodes": self.participants.at_start if self.participants else 0,
            "num-partitions": self.participants.num_partitions if self.participants else None,
            "fleet-changes": self.participants.changes if self.participants else [],
            "seconds": round(self.seconds, 3),
            "rounds": [each.as_json() for each in self.rounds],
        }
        return json.dumps(_without_nan(metrics), indent=2, allow_nan=False) + "\n"

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        unfinished = self.folder / f".unfinished-{name}"
        try:
            write(unfinished)
            unfinished.replace(self.folder / name)
        finally:
            unfinished.unlink(missing_ok=True)

    def _update_latest(self) -> None:
        link = self.root / f".latest-{self.run_id}"
        link.unlink(missing_ok=True)
        link.symlink_to(str(self.run_id))
        link.replace(self.root / "latest")


def _without_nan(value: Any) -> Any:
    """Return the value with None for every number that is not finite, for which JSON has no notation."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str]:
    """Return the versions of the installed packages; TensorFlow's CPU wheel is listed as ``tensorflow``."""
    found = {}
    for package in ["flwr", "tensorflow", "tensorflow-cpu", "keras"]:
        try:
            found[package.removesuffix("-cpu")] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
