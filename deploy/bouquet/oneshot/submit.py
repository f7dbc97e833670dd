"""Submits an app from within the fleet, for hosts that have only Docker: `python -m bouquet.oneshot.submit`.

The FAB comes from stdin. The run's id goes to stdout, its log goes to stderr as it arrives: a shell script gets the id
by `$(...)` while its user reads the log. The exit code is that of the outcome: 0 for a run that completed, otherwise
the code of a `BouquetError`.
"""

import argparse
import io
import signal
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bouquet.contract.tls_files import CA
from bouquet.errors import RunError, SettingError, report_errors
from bouquet.flower.control_client import ControlApiError, ControlClient, KnownRun
from bouquet.flower.follow_run import follow_run
from bouquet.runtime import grpc_proxy
from bouquet.settings.oneshot import SubmitSettings
from bouquet.settings.overrides import check_overrides

SUBMIT_TIMEOUT = 60.0
"""Seconds that the SuperLink may take to accept a run."""
COMPLETED = "finished:completed"
INTERRUPTED = 128 + signal.SIGINT


def submit(client: ControlClient, fab: bytes, run_config: str) -> int:
    """Submit a run and return its id.

    Args:
        client: A connection to the SuperLink.
        fab: The app.
        run_config: Overrides of the app's run-config; empty for none.

    Raises:
        SettingError: stdin is not a FAB, or Flower would reject the run-config or ignore a part of it.
        RunError: The SuperLink rejected the run.
    """
    with tempfile.TemporaryDirectory() as app:
        try:
            with zipfile.ZipFile(io.BytesIO(fab)) as files:
                files.extract("pyproject.toml", app)
        except (zipfile.BadZipFile, KeyError) as error:
            raise SettingError(
                "stdin", f"{len(fab)} bytes", f"it is not a FAB ({error})", "redirect it: <app.fab"
            ) from error
        check_overrides(run_config, Path(app))
    try:
        return client.start_run(fab, run_config, SUBMIT_TIMEOUT)
    except ControlApiError as error:
        hint = "correct what the SuperLink names and retry"
        raise RunError(f"the run was rejected: {error.details}", hint) from error


def check_outcome(run: KnownRun) -> None:
    """Check how a run ended.

    Raises:
        RunError: The run did not complete.
    """
    if run.status != COMPLETED:
        raise RunError(f"run {run.run_id} ended as {run.status}: {run.details}", "full logs: docker compose logs")


def _log(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> None:
    """Submit the app, follow its log, print the run's id, and check how the run ended.

    Args:
        arguments: The command line without the program's name; None for `sys.argv`.
    """
    parser = argparse.ArgumentParser(prog="submit", description="Submit the FAB on stdin to this fleet.")
    help_text = "overrides of the app's run-config; may be repeated"
    parser.add_argument("--run-config", action="append", default=[], metavar="'KEY=VALUE ...'", help=help_text)
    run_config = " ".join(parser.parse_args(arguments).run_config)
    settings = SubmitSettings.read()
    grpc_proxy.only_on_request()
    signal.signal(signal.SIGTERM, _interrupt)
    certificate = None if settings.insecure else (settings.directories.server / CA).read_bytes()
    with ControlClient(settings.control, certificate) as client:
        run_id = submit(client, sys.stdin.buffer.read(), run_config)
        _log(f"Successfully started run {run_id}\n")
        print(run_id, flush=True)
        try:
            run = follow_run(client, run_id, _log)
        except KeyboardInterrupt:
            _log(f"bouquet: interrupted; run {run_id} continues on the fleet\n")
            sys.exit(INTERRUPTED)
    check_outcome(run)


if __name__ == "__main__":
    report_errors(main)
