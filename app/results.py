"""What a run leaves: ``<results>/<run-id>/`` with the model, the metrics and a plot, and ``<results>/latest``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from app.dataset import Dataset
from app.errors import RunError, SettingError
from app.roll import Roll
from app.strategy import Round

SETTING = "BOUQUET_RESULTS_DIR"


class Results:
    """A run's folder of results, and what is to be said in its ``metrics.json``.

    The folder is made, and tried with a first file, before training: a place that cannot be written must not
    cost a run. Without ``BOUQUET_RESULTS_DIR`` it is made under the ServerApp's current directory; in Flower's
    simulation that is where the local SuperLink was started, by the first `flwr run`.

    Attributes:
        dataset: The dataset that was chosen; None until it is.
        roll: The SuperNodes that the run counts on; None until they have come.
        rounds: The rounds so far.
        seconds: What the strategy took.

    Raises:
        SettingError: The folder cannot be made or written.
    """

    def __init__(self, run_id: int, run_config: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> None:
        self.run_id, self.run_config = run_id, dict(run_config)
        self.dataset: Dataset | None = None
        self.roll: Roll | None = None
        self.rounds: list[Round] = []
        self.seconds = 0.0
        self.root = Path(environ.get(SETTING) or "results").absolute()
        self.folder = self.root / str(run_id)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write("metrics.json", lambda file: file.write_text(self._metrics("failed", "the run was cut off")))
            self._point_latest()
        except OSError as error:
            mend = f"set {SETTING} to a folder that the user of the ServerApp can write"
            raise SettingError(SETTING, self.root, f"cannot be written ({_why(error)})", mend) from error

    def complete(self) -> None:
        """Write ``metrics.json`` of a run that did what it was asked to."""
        self.save("metrics.json", lambda file: file.write_text(self._metrics("completed", None)))

    def fail(self, error: Exception) -> None:
        """Write ``metrics.json`` of a run that failed, with all that is known of it."""
        self.save("metrics.json", lambda file: file.write_text(self._metrics("failed", str(error))))

    def save(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a file under its name, complete or not at all.

        Raises:
            RunError: The disk is full, or the folder has become unwritable.
        """
        try:
            self._write(name, write)
        except OSError as error:
            mend = f"make room, or set {SETTING} to another folder"
            raise RunError(f"{self.folder / name}: cannot be written ({_why(error)}); {mend}") from error

    def _metrics(self, status: Literal["completed", "failed"], error: str | None) -> str:
        dataset = self.dataset and {"name": self.dataset.name, "source": self.dataset.source}
        metrics = {
            "run-id": str(self.run_id),  # 64 bits: more than a JSON number holds
            "status": status,
            "error": error,
            "versions": _versions(),
            "dataset": dataset,
            "run-config": self.run_config,
            "num-supernodes": self.roll.at_start if self.roll else 0,
            "num-partitions": self.roll.num_partitions if self.roll else None,
            "fleet-changes": self.roll.changes if self.roll else [],
            "seconds": round(self.seconds, 3),
            "rounds": [each.as_json() for each in self.rounds],
        }
        return json.dumps(metrics, indent=2) + "\n"

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        unfinished = self.folder / f".unfinished-{name}"
        try:
            write(unfinished)
            unfinished.replace(self.folder / name)
        finally:
            unfinished.unlink(missing_ok=True)

    def _point_latest(self) -> None:
        link = self.root / f".latest-{self.run_id}"
        link.unlink(missing_ok=True)
        link.symlink_to(str(self.run_id))
        link.replace(self.root / "latest")


def _versions() -> dict[str, str]:
    """Return the versions of what makes the result; TensorFlow's CPU wheel goes by another name."""
    found = {}
    for package in ["flwr", "tensorflow", "tensorflow-cpu", "keras"]:
        try:
            found[package.removesuffix("-cpu")] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _why(error: OSError) -> str:
    return error.strerror or str(error)
