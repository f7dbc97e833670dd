"""One run of the app on the fleet: `flwr run . local-deployment --stream`, how it ended, and its results."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bouquet.errors import RunError
from bouquet.host.connection import NAME
from bouquet.host.text_table import text_table
from bouquet.polling import poll_until
from bouquet.settings.host import PROJECT

FLWR = Path(sys.executable).parent / "flwr"
STARTED = re.compile(r"Successfully started run (\d+)")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Variables that keep Flower's notices out of a run's log."""
RECONNECT_TIMEOUT = 120.0
"""Seconds that a SuperLink which does not answer may take to answer again."""
RECONNECT_POLL_SECONDS = 1.0
MAX_REASONS = 5
"""Failures of nodes that a hint names."""
RESULT_FILES = (("model", "final_model.keras"), ("plot", "history.png"), ("metrics", "metrics.json"))
COLUMNS = ("round", "train nodes", "train_loss", "train_acc", "eval nodes", "eval_loss", "eval_acc", "seconds")


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


def submit(run_config: str) -> Outcome:
    """Run the app on the fleet, print its log as it arrives, and return how the run ended.

    Args:
        run_config: Overrides of the app's run-config; empty for none.

    Raises:
        RunError: The SuperLink rejected the run, and `flwr` printed why; or it is unreachable for too long.
    """
    command = [str(FLWR), "run", ".", NAME, "--stream"]
    if run_config:
        command += ["--run-config", run_config]
    run_id, shown = None, 0
    for line in _output(command):
        print(line, end="", flush=True)
        shown += run_id is not None
        if match := STARTED.search(line):
            run_id = match[1]
    if run_id is None:
        setting = f"RUN_CONFIG={run_config}" if run_config else "flwr run"
        raise RunError(f"{setting}: the run was rejected (see above)", "fix the error that flwr printed and retry")
    return _wait_for_end(run_id, shown)


def _output(command: list[str]) -> Iterator[str]:
    with subprocess.Popen(command, cwd=PROJECT, env=os.environ | QUIET, stdout=subprocess.PIPE, text=True) as flwr:
        yield from flwr.stdout or ()


def _wait_for_end(run_id: str, shown: int) -> Outcome:
    """Return how a run ended. Where its log stream was interrupted, print the rest of the log first.

    The stream is interrupted when the SuperLink restarts.

    Args:
        run_id: The run.
        shown: Lines of its log that are printed already.

    Raises:
        RunError: The SuperLink is unreachable for too long.
    """
    deadline = time.monotonic() + RECONNECT_TIMEOUT
    while True:
        now = _outcome_when_reachable(run_id, deadline - time.monotonic())
        if now.status.startswith("finished"):
            return now
        print(f"bouquet: run {run_id}: log stream interrupted; the run continues", flush=True)
        for number, line in enumerate(_output([str(FLWR), "log", run_id, NAME, "--stream"])):
            if number > shown:  # the first line is about the connection
                print(line, end="", flush=True)
                shown += 1
                deadline = time.monotonic() + RECONNECT_TIMEOUT


def _outcome_when_reachable(run_id: str, timeout_seconds: float) -> Outcome:
    def ask() -> Outcome | None:
        with suppress(RunError):
            return outcome(run_id)
        return None

    return poll_until(ask, timeout_seconds, RECONNECT_POLL_SECONDS) or outcome(run_id)


def outcome(run_id: str) -> Outcome:
    """Return the status of a run, from the SuperLink: `flwr run` exits with 0 even if the run fails.

    Raises:
        RunError: The SuperLink does not answer, or does not know the run.
    """
    answer = subprocess.run(
        [str(FLWR), "ls", NAME, "--run-id", run_id, "--format", "json"],
        cwd=PROJECT,
        env=os.environ | QUIET,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        row = json.loads(answer.stdout)["runs"][0]
        return Outcome(run_id, row["status"], row.get("status-details") or row.get("details") or "")
    except (ValueError, LookupError) as error:
        raise RunError(
            f"run {run_id}: its status is unknown ({answer.stderr.strip() or answer.stdout.strip()})",
            f"ask again: flwr ls {NAME} --run-id {run_id}",
        ) from error


def summary(results: Path, ended: Outcome) -> str:
    """Return the table of rounds and the paths of the result files.

    Args:
        results: The folder with the results of all runs.
        ended: How the run ended.

    Raises:
        RunError: The run failed or left no model. The hint names the nodes that failed and their reasons, if known.
    """
    folder = results / ended.run_id
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        metrics = None
    if ended.status != "finished:completed":
        raise RunError(f"run {ended.run_id} ended as {ended.status}: {ended.details}", _hint(metrics))
    if metrics is None or not (folder / "final_model.keras").exists():
        raise RunError(f"run {ended.run_id} ended without a model in {folder}", _hint(metrics))
    return "\n".join([rounds_table(metrics), "", *(f"{what:<8}{folder / name}" for what, name in RESULT_FILES)])


def rounds_table(metrics: dict[str, Any]) -> str:
    """Return the rounds of a `metrics.json` as a table, followed by lines about the test split, fleet and dataset."""
    lines = [text_table(COLUMNS, [_row(entry) for entry in metrics["rounds"]], justify="right")]
    if central := metrics["rounds"] and metrics["rounds"][-1].get("central"):
        values = ", ".join(f"{name} {value:.4f}" for name, value in central.items())
        lines.append(f"the global model on the test split: {values}")
    if changes := metrics.get("fleet-changes"):
        kinds = [change["what"] for change in changes]
        lines.append(
            f"{metrics['num-supernodes']} SuperNodes at the start, then {kinds.count('joined')} joined and "
            f"{kinds.count('left')} left; metrics.json names them under `fleet-changes`"
        )
    lines.append(f"dataset: {metrics['dataset']['name']} ({metrics['dataset']['source']})")
    return "\n".join(lines)


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    train, evaluate = entry["train"], entry["evaluate"]
    return (
        str(entry["round"]),
        _replies(train),
        _number(train, "train_loss"),
        _number(train, "train_acc"),
        _replies(evaluate),
        _number(evaluate, "eval_loss"),
        _number(evaluate, "eval_acc"),
        f"{entry['seconds']:.1f}",
    )


def _replies(phase: dict[str, Any]) -> str:
    return f"{phase['replies']} of {phase['replies'] + phase['failures']}"


def _number(phase: dict[str, Any], name: str) -> str:
    value = (phase.get("metrics") or {}).get(name)
    return "-" if value is None else f"{value:.4f}"


def _hint(metrics: dict[str, Any] | None) -> str:
    reasons = {
        f"node {node_id}: {reason.strip().splitlines()[-1]}"
        for entry in (metrics or {}).get("rounds", ())
        for phase in ("train", "evaluate")
        for node_id, reason in entry[phase]["errors"].items()
    }
    return "; ".join([*sorted(reasons)[:MAX_REASONS], "full logs: make logs"])
