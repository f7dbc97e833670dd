"""The fleet as the ServerApp sees it: its configured size, and waiting until enough SuperNodes are online."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from logging import INFO
from pathlib import Path

from flwr.serverapp import Grid

from app.exceptions import FleetError, SettingError
from app.run_log import log

SIZE_SETTING = "BOUQUET_SUPERNODES"
FILE_SETTING = "BOUQUET_SIZE_FILE"
MIN_NODES = 2
"""Number of SuperNodes to wait for if no size is configured; Flower's own strategies wait for as many."""
POLL_SECONDS = 0.25


def configured_size(environ: Mapping[str, str] = os.environ) -> int | None:
    """Return the number of SuperNodes that the fleet is configured to have; None if no size is configured.

    A Bouquet fleet has its size in a file, because it can change while the fleet runs. Elsewhere, as in Flower's
    simulation, ``BOUQUET_SUPERNODES`` can give it.

    Args:
        environ: The environment: ``BOUQUET_SIZE_FILE`` (the path of the file) or ``BOUQUET_SUPERNODES`` (the number).
            If both are set, the file is used.

    Raises:
        SettingError: The size is not a whole number of at least 1, or the file cannot be read.
    """
    if file := environ.get(FILE_SETTING, "").strip():
        hint = "write the number of SuperNodes into it: SUPERNODES=10 make up"
        try:
            text = Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingError(FILE_SETTING, file, f"cannot be read ({error.strerror})", hint) from error
        size = _parse_size(text)
        if size is None:
            problem = f"must contain a whole number of at least 1, not {text!r}"
            raise SettingError(FILE_SETTING, file, problem, hint)
        return size
    text = environ.get(SIZE_SETTING, "").strip()
    if not text:
        return None
    size = _parse_size(text)
    if size is None:
        raise SettingError(SIZE_SETTING, text, "must be a whole number of at least 1", f"give e.g. {SIZE_SETTING}=10")
    return size


def _parse_size(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text) >= 1 else None


def await_fleet(grid: Grid, expected: int, deadline: float, environ: Mapping[str, str] = os.environ) -> list[int]:
    """Return the ids of all SuperNodes that are online, as soon as there are at least `expected`.

    Without this wait, round 1 would sample from the first nodes to connect: one of two instead of five of ten.

    Args:
        grid: The fleet.
        expected: The number of SuperNodes to wait for.
        deadline: How long to wait, in seconds.
        environ: The environment that gave the fleet's size; the error's hint depends on it.

    Raises:
        FleetError: Fewer than `expected` SuperNodes are online after `deadline` seconds.
    """
    logged = -1

    def online() -> list[int]:
        nonlocal logged
        node_ids = list(grid.get_node_ids())
        if len(node_ids) < expected and len(node_ids) != logged:
            logged = len(node_ids)
            log(INFO, "Waiting for the fleet: %d of %d SuperNodes are online", logged, expected)
        return node_ids

    node_ids = poll_nodes(online, expected, deadline)
    if len(node_ids) < expected:
        smaller = max(len(node_ids), 1)
        resize = (
            f"SUPERNODES={smaller} make up" if environ.get(FILE_SETTING, "").strip() else f"{SIZE_SETTING}={smaller}"
        )
        raise FleetError(
            f"fleet-deadline={deadline:g}: only {len(node_ids)} of {expected} SuperNodes joined within that many "
            "seconds; read the logs of the missing SuperNodes, wait longer with --run-config "
            f'"fleet-deadline={2 * deadline:g}", or make the fleet smaller with {resize}'
        )
    return node_ids


def poll_nodes(online: Callable[[], list[int]], minimum: int, deadline: float) -> list[int]:
    """Return the first result of `online` that has at least `minimum` ids; after the deadline, its last result.

    Args:
        online: Called every `POLL_SECONDS`; returns node ids.
        minimum: The number of node ids to wait for.
        deadline: How long to wait, in seconds.
    """
    started = time.monotonic()
    while len(node_ids := online()) < minimum and time.monotonic() - started < deadline:
        time.sleep(POLL_SECONDS)
    return node_ids
