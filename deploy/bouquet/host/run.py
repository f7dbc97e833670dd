"""One run of an app on the fleet: its submission, its log as it arrives, and how it ended."""

import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bouquet.errors import FleetError, RunError
from bouquet.host.checks.flwr_connection import connection_problem
from bouquet.host.connection import NAME
from bouquet.host.endpoint import Endpoint
from bouquet.host.interrupts import SECOND_CTRL_C_SECONDS, CtrlCCounter, Interrupted, Terminated, ends_at_once
from bouquet.host.submission import FLWR, submit_app
from bouquet.polling import poll_until

if TYPE_CHECKING:
    from bouquet.flower.control_client import ControlClient

CALL_TIMEOUT = 10.0
"""Seconds that the SuperLink may take to answer one call."""
CTRL_C_POLL_SECONDS = 0.05
NOTHING_SUBMITTED = "interrupted; no run was submitted; the fleet stays up; stop it with: make down"


@dataclass(frozen=True)
class Outcome:
    """How the SuperLink reports a run.

    Attributes:
        run_id: The run.
        status: Flower's status, such as `running` or `finished:completed`.
        details: Flower's details on a failure; empty for none.
    """

    run_id: str
    status: str
    details: str


def submit(
    app: Path, run_config: str, endpoint: Endpoint, flower_home: Path, on_submitted: Callable[[], None] = lambda: None
) -> Outcome:
    """Run an app on the fleet, print its log as it arrives, and return how the run ended.

    All calls go to the fleet's own endpoint, whatever the user's `config.toml` says by now.

    Args:
        app: The app's folder.
        run_config: Overrides of the app's run-config; empty for none.
        endpoint: The fleet.
        flower_home: Flower's folder, by which the user's `flwr` finds the fleet.
        on_submitted: Called when the SuperLink has accepted the run.

    Raises:
        RunError: The SuperLink rejected the run, or is unreachable for too long.
        Interrupted: Ctrl-C or SIGTERM. The run continues, unless Ctrl-C was pressed twice.
    """
    # Imported here: importing Flower is slow, and other commands do without it.
    with ends_at_once(NOTHING_SUBMITTED):
        from bouquet.flower.control_client import ControlClient  # noqa: PLC0415

    run_id, start = None, time.time()
    with CtrlCCounter() as ctrl_c, ControlClient(endpoint.address, endpoint.root_certificate) as client:
        try:
            run_id = submit_app(app, run_config, endpoint)
            on_submitted()
            print(f"Successfully started run {run_id}", flush=True)
            return _follow(client, run_id)
        except KeyboardInterrupt as cause:
            if run_id is None and (run_id := _submitted_since(client, start)) is None:
                raise Interrupted(NOTHING_SUBMITTED, cause) from None
            _leave(client, run_id, cause, ctrl_c, stop_command(run_id, endpoint, flower_home))


def _follow(client: "ControlClient", run_id: int) -> Outcome:
    """Print a run's log to its end and return how the run ended.

    Raises:
        RunError: The SuperLink is unreachable for too long.
    """
    from bouquet.flower.follow_run import follow_run  # noqa: PLC0415

    try:
        run = follow_run(client, run_id, lambda text: print(text, end="", flush=True))
    except FleetError as error:
        problem = f"run {run_id}: its status is unknown ({error.message})"
        raise RunError(problem, f"ask again: flwr ls {NAME} --run-id {run_id}") from error
    return Outcome(str(run_id), run.status, run.details)


def _submitted_since(client: "ControlClient", start: float) -> int | None:
    """Return the run that an interrupted `flwr run` has submitted all the same; None for none."""
    with suppress(FleetError):
        runs = [run for run in client.list_runs(CALL_TIMEOUT) if run.submitted >= start]
        return max(runs, key=lambda run: run.submitted).run_id if runs else None
    return None


def _leave(client: "ControlClient", run_id: int, cause: KeyboardInterrupt, ctrl_c: CtrlCCounter, stop: str) -> NoReturn:
    """Say that a run continues, and stop it after a second Ctrl-C.

    Raises:
        Interrupted: Always.
    """
    again = "" if isinstance(cause, Terminated) else f", or press Ctrl-C again within {SECOND_CTRL_C_SECONDS:.0f} s"
    sys.stderr.write(f"\nbouquet: run {run_id} continues; stop it with: {stop}{again}\n")
    sys.stderr.flush()
    if again and poll_until(lambda: ctrl_c.pressed_again, SECOND_CTRL_C_SECONDS, CTRL_C_POLL_SECONDS):
        try:
            client.stop_run(run_id, CALL_TIMEOUT)
        except FleetError as error:
            raise Interrupted(f"run {run_id} was not stopped: {error.message}", cause) from None
        raise Interrupted(f"run {run_id} was stopped; the fleet stays up", cause) from None
    raise Interrupted("", cause) from None


def stop_command(run_id: int, endpoint: Endpoint, flower_home: Path) -> str:
    """Return the command with which the user stops a run, from the folder that the user is in."""
    flwr = FLWR.relative_to(Path.cwd()) if FLWR.is_relative_to(Path.cwd()) else FLWR
    home = "" if flower_home == Path.home() / ".flwr" else f"FLWR_HOME={shlex.quote(str(flower_home.resolve()))} "
    connect = "make connection && " if connection_problem(flower_home, endpoint) else ""
    return f"{connect}{home}{shlex.quote(str(flwr))} stop {run_id} {NAME}"
