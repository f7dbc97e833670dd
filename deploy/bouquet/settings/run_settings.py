"""Settings of every run, read in the process of its ServerApp."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bouquet.settings.env import Directories, Environment, text, whole_number

VARIABLES = ("FLEET_DEADLINE", "ROUND_DEADLINE")
"""The environment variables that a user may set; the fleet sets the others."""

MAX_SECONDS = 31 * 24 * 3600


@dataclass(frozen=True)
class RunSettings:
    """What the fleet does for every run.

    Attributes:
        fleet_deadline: How long a run waits for the whole fleet at its start, and later for at least one of its nodes,
            in seconds.
        round_deadline: How long each phase waits for replies unless the app itself says how long, in seconds; None for
            no limit.
        results_dir: The folder that gets a results folder for each run.
        run_dir: The SuperLink's run folder, which has the files of `bouquet.contract.partitions`.
    """

    fleet_deadline: float
    round_deadline: float | None
    results_dir: Path
    run_dir: Path

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        """Read the settings; raise `SettingError` for an impossible value."""
        return cls(
            fleet_deadline=whole_number(environment, "FLEET_DEADLINE", 120, 1, MAX_SECONDS),
            round_deadline=whole_number(environment, "ROUND_DEADLINE", 3600, 0, MAX_SECONDS) or None,
            results_dir=Path(text(environment, "BOUQUET_RESULTS_DIR", "/var/lib/bouquet/results")),
            run_dir=Directories.read(environment).run,
        )
