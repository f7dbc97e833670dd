"""What a run has left: its metrics as tables, the nodes that failed, and the files that the app wrote."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bouquet.errors import RunError
from bouquet.host.metric_tables import exchanges_table, rounds_table
from bouquet.host.run import Outcome
from bouquet.host.text_table import text_table
from bouquet.record.entries import failure_line, shortened
from bouquet.record.run_record import METRICS

IN_METRICS = f" in {METRICS}"
MAX_FILES = 20
WIDTH = 120
"""Characters per line where the output is not a terminal."""
KIBI = 1024


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return a run's `metrics.json`; empty if there is none, or if it is a file of the app's own.

    Args:
        folder: The results of the run.
    """
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return metrics if isinstance(metrics, dict) and {"run-id", "rounds", "exchanges"} <= metrics.keys() else {}


def summary(folder: Path, width: int | None = None) -> str:
    """Return what a run has left, as text for the terminal.

    Args:
        folder: The results of the run.
        width: Characters per line; None for those of the terminal.
    """
    metrics = read_metrics(folder)
    width = width or terminal_width()
    parts = [
        [rounds_table(metrics["rounds"], width)] if metrics.get("rounds") else [],
        [exchanges_table(metrics["exchanges"], width)] if _has_own_loop(metrics) else [],
        [f"failed: {line}" for line in shortened(failures(metrics), IN_METRICS)],
        _changes(metrics),
        list(_files(folder)),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def check_outcome(ended: Outcome, metrics: dict[str, Any]) -> None:
    """Raise an error for a run that did not complete.

    Args:
        ended: How the run ended.
        metrics: Its `metrics.json`.

    Raises:
        RunError: The run failed, or was stopped. It names the nodes that failed and their reasons, if known.
    """
    if ended.status != "finished:completed":
        details = " ".join(ended.details.split())
        others = [line for line in failures(metrics) if line.partition(": ")[2] not in details]
        hint = "; ".join([*shortened(others, IN_METRICS), "full logs: make logs"])
        raise RunError(": ".join(filter(None, [f"run {ended.run_id} ended as {ended.status}", details])), hint)


def failures(metrics: dict[str, Any]) -> list[str]:
    """Return a line for each node that failed: when it failed first, its id and the reason."""
    found: dict[str, str] = {}
    for when, errors in _errors(metrics):
        for node_id, reason in errors.items():
            line = failure_line(node_id, reason)
            found.setdefault(line, f"{when}: {line}")
    return list(found.values())


def terminal_width() -> int:
    """Return the characters per line of the terminal that stdout is; 120 if it is none."""
    return shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH


def _has_own_loop(metrics: dict[str, Any]) -> bool:
    return bool(metrics.get("exchanges")) and not metrics.get("rounds")


def _errors(metrics: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    for entry in metrics.get("rounds", ()):
        for phase in ("train", "evaluate"):
            yield f"round {entry['round']}, {phase}", entry[phase]["errors"]
    for entry in metrics.get("exchanges", ()):
        yield f"exchange {entry['exchange']}, {entry['message-type']}", entry["errors"]


def _changes(metrics: dict[str, Any]) -> list[str]:
    kinds = [change["what"] for change in metrics.get("fleet-changes", ())]
    if not kinds:
        return []
    return [
        f"{metrics['num-supernodes']} SuperNodes at the start, then {kinds.count('joined')} joined and "
        f"{kinds.count('left')} left; {METRICS} names them under `fleet-changes`"
    ]


def _files(folder: Path) -> Iterator[str]:
    """Yield a heading and a line for each file, with its path relative to the folder and its size."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if not found:
        yield f"the run left no files in {folder}"
        return
    yield f"results in {folder}:"
    shown = [(path.relative_to(folder).as_posix(), _size(path.stat().st_size)) for path in found[:MAX_FILES]]
    yield from (f"  {line}" for line in text_table(("file", "size"), shown).splitlines()[1:])
    if len(found) > MAX_FILES:
        yield f"  and {len(found) - MAX_FILES} more"


def _size(size: float) -> str:
    if size < KIBI:
        return f"{size:.0f} B"
    units = ("KiB", "MiB", "GiB", "TiB")
    for unit in units:
        size /= KIBI
        if size < KIBI or unit == units[-1]:
            break
    return f"{size:.1f} {unit}"
