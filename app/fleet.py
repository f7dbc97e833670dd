"""The fleet as the ServerApp sees it: how many SuperNodes there should be, and waiting for them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from logging import INFO
from pathlib import Path

from flwr.common.logger import log
from flwr.serverapp import Grid

from app.errors import FleetError, SettingError

SETTING = "BOUQUET_SUPERNODES"
FILE_SETTING = "BOUQUET_SIZE_FILE"
LEAST = 2  # what Flower's own strategies wait for, where nobody says how large the fleet is
_POLL_SECONDS = 0.25


def told_size(environ: Mapping[str, str] = os.environ) -> int | None:
    """Return how many SuperNodes the fleet has been told to have; None where nobody says.

    A fleet whose size changes has it in a file (``BOUQUET_SIZE_FILE``), another in ``BOUQUET_SUPERNODES``.

    Raises:
        SettingError: It is no whole number over 0, or the file is not there.
    """
    setting, value = SETTING, environ.get(SETTING, "").strip()
    if file := environ.get(FILE_SETTING, "").strip():
        setting = FILE_SETTING
        try:
            value = Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            mend = "write the number of SuperNodes into it, as `docker compose up -d setup` does"
            raise SettingError(FILE_SETTING, file, f"cannot be read ({error.strerror})", mend) from error
    elif not value:
        return None
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise SettingError(setting, value, "must be a whole number of at least 1", f"give e.g. {SETTING}=10")
    return int(value)


def wait(grid: Grid, expected: int, deadline: float) -> list[int]:
    """Wait until `expected` SuperNodes are online, at most `deadline` seconds; return the ids of all that are.

    Without it, round 1 would sample from whoever came first: one of two, where five of ten were meant.

    Raises:
        FleetError: Fewer came in time.
    """
    began, told = time.monotonic(), -1
    while len(node_ids := list(grid.get_node_ids())) < expected:
        if time.monotonic() - began >= deadline:
            raise FleetError(
                f"fleet-deadline={deadline:g}: only {len(node_ids)} of {expected} SuperNodes came within that many "
                "seconds; look at the log of those that are missing, give them longer with --run-config "
                f'"fleet-deadline={2 * deadline:g}", or expect fewer with {SETTING}={max(len(node_ids), 1)}'
            )
        if len(node_ids) != told:
            told = len(node_ids)
            log(INFO, "Waiting for the fleet: %d of %d SuperNodes are online", told, expected)
        time.sleep(_POLL_SECONDS)
    return node_ids
