"""A run's results folder and its record, from before the ServerApp is loaded until after its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR, INFO, WARNING
from pathlib import Path

from flwr.app import Context
from flwr.common.logger import log

from bouquet.errors import BouquetError
from bouquet.flower.run_grid import RunGrid
from bouquet.flower.run_recorder import RunRecorder
from bouquet.record.history_plot import plot_history
from bouquet.record.run_folder import RunFolder
from bouquet.record.run_record import RunRecord
from bouquet.record.versions import package_versions
from bouquet.runtime.termination import Terminated

HISTORY = "history.png"


@contextmanager
def recorded_run(grid: RunGrid, context: Context, app: Path) -> Iterator[None]:
    """Record the run that the block loads and runs. In the block, the results folder is the working directory.

    Args:
        grid: The run's grid.
        context: The ServerApp's context.
        app: The app's folder.

    Raises:
        SettingError: The results folder cannot be written, before the block begins.
        RunError: The run's record cannot be written, after a block without an error.
    """
    folder = RunFolder(grid.settings.results_dir, context.run_id)
    record = RunRecord(folder, context.run_id, context.run_config, package_versions(app))
    record.begin()
    folder.enter()
    recorder = RunRecorder(record, grid)
    recorder.install()
    started = time.monotonic()
    try:
        yield
    except Terminated:
        raise
    except (Exception, SystemExit) as error:
        _finish(record, recorder, started)
        try:
            record.fail(str(error) or type(error).__name__)
        except BouquetError as problem:
            log(ERROR, "%s", problem)
        raise
    _finish(record, recorder, started)
    record.complete()
    log(INFO, "Results of run %s: `bouquet run` and `make results` copy them to the host", record.run_id)


def _finish(record: RunRecord, recorder: RunRecorder, started: float) -> None:
    """Complete the record of a run that has ended, and draw its plot. A problem with the plot does not fail the run."""
    recorder.copy_members()
    if record.strategy is None:
        record.seconds = time.monotonic() - started
    if record.folder.has(HISTORY):  # the app's own
        return
    try:
        if (plot := plot_history(record.rounds)) is not None:
            record.folder.write(HISTORY, plot)
    except Exception as error:
        log(WARNING, "%s was not written: %s", HISTORY, error)
