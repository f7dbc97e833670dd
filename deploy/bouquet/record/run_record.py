"""A run's record, and `metrics.json`, into which it is written as it grows. Its format: docs/metrics.md."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from bouquet.errors import RunError
from bouquet.record.entries import ExchangeEntry, Round
from bouquet.record.run_folder import RunFolder

METRICS = "metrics.json"
INTERRUPTED = "the run was interrupted"
WRITE_SECONDS = 1.0
"""While a run is in progress, its record is written at most this often: a loop may have a thousand short exchanges."""
WRITE_SHARE = 0.01
"""Writing the record of a run in progress takes at most this share of the run: it grows with each round."""


@dataclass
class RunRecord:
    """What is known about a run.

    Attributes:
        folder: The run's folder.
        run_id: The run's id.
        run_config: The run-config, with the app's defaults.
        versions: Versions of the packages, by name.
        strategy: Name of the strategy's class; None as long as no strategy has been started.
        num_supernodes: Number of SuperNodes when the run started; 0 before the fleet was complete.
        num_partitions: Number of partitions of the run; None if it is not known.
        fleet_changes: SuperNodes that joined or left during the run, oldest first.
        rounds: The rounds of `Strategy.start`.
        exchanges: The exchanges outside of `Strategy.start`.
        seconds: How long `Strategy.start` took, in seconds.
    """

    folder: RunFolder
    run_id: int
    run_config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    strategy: str | None = None
    num_supernodes: int = 0
    num_partitions: int | None = None
    fleet_changes: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    exchanges: list[ExchangeEntry] = field(default_factory=list)
    seconds: float = 0.0
    _next_write: float = field(default=-math.inf, repr=False)

    def begin(self) -> None:
        """Write the first `metrics.json`, which says that the run was interrupted.

        Raises:
            SettingError: The results folder cannot be written.
        """
        try:
            self._write("failed", INTERRUPTED)
        except RunError as error:
            if isinstance(error.__cause__, OSError):
                raise self.folder.not_writable(error.__cause__) from error
            raise

    def update(self) -> None:
        """Write what is known so far, unless that was done a short time ago.

        A full disk does not end the run before its end; `complete` reports it.
        """
        if time.monotonic() >= self._next_write:
            with suppress(RunError):
                self._write("failed", INTERRUPTED)

    def complete(self) -> None:
        """Write the record of a run that completed.

        Raises:
            RunError: The file cannot be written.
        """
        self._write("completed", None)

    def fail(self, error: str) -> None:
        """Write the record of a run that failed, with the rounds so far.

        Raises:
            RunError: The file cannot be written.
        """
        self._write("failed", error)

    def _write(self, status: Literal["completed", "failed"], error: str | None) -> None:
        started = time.monotonic()
        self.folder.write(METRICS, self._text(status, error).encode())
        now = time.monotonic()
        self._next_write = now + max(WRITE_SECONDS, (now - started) / WRITE_SHARE)

    def _text(self, status: Literal["completed", "failed"], error: str | None) -> str:
        """Return the content of metrics.json."""
        metrics = {
            "run-id": str(self.run_id),  # 64 bits: too large for a JSON number
            "status": status,
            "error": error,
            "versions": dict(self.versions),
            "run-config": dict(self.run_config),
            "strategy": self.strategy,
            "num-supernodes": self.num_supernodes,
            "num-partitions": self.num_partitions,
            "fleet-changes": self.fleet_changes,
            "seconds": round(self.seconds, 3),
            "rounds": [each.as_json() for each in self.rounds],
            "exchanges": [{"exchange": n, **each.as_json()} for n, each in enumerate(self.exchanges, start=1)],
        }
        return json.dumps(_without_nan(metrics), indent=2, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    """Return the value with None for every number that is not finite, for which JSON has no notation."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
