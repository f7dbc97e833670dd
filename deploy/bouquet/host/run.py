"""The main job: `flwr run . local-deployment --stream`, its outcome, and what it left."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bouquet.errors import RunError
from bouquet.host.connection import NAME
from bouquet.settings.host import PROJECT

FLWR = Path(sys.executable).parent / "flwr"
STARTED = re.compile(r"Successfully started run (\d+)")
PATIENCE = 120.0  # seconds for a SuperLink that does not answer to be back
# Neither has a place in a run's log.
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


LEFT = (("model", "final_model.keras"), ("plot", "history.png"), ("metrics", "metrics.json"))


@dataclass(frozen=True)
class Outcome:
    """How a run ended, as the SuperLink tells it."""

    run_id: str
    status: str
    details: str


def submit(run_config: str) -> Outcome:
    """Run the app on the fleet, show its log as it comes, and return how it ended.

    Raises
    ------
    RunError
        The SuperLink took no run; `flwr` said why.
    """
    command = [str(FLWR), "run", ".", NAME, "--stream"]
    if run_config:
        command += ["--run-config", run_config]
    run_id, shown = None, 0
    for line in _lines(command):
        print(line, end="", flush=True)
        shown += run_id is not None
        if match := STARTED.search(line):
            run_id = match[1]
    if run_id is None:
        setting = f"RUN_CONFIG={run_config}" if run_config else "flwr run"
        raise RunError(f"{setting}: the run was not taken (see above)", "mend what flwr says, and run it again")
    return _end(run_id, shown)


def _lines(command: list[str]) -> Iterator[str]:
    with subprocess.Popen(command, cwd=PROJECT, env=os.environ | QUIET, stdout=subprocess.PIPE, text=True) as flwr:
        yield from flwr.stdout or ()


def _end(run_id: str, shown: int) -> Outcome:
    """Return how a run ended; where its log broke off, as when the SuperLink is started anew, show the rest first."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            ended = outcome(run_id)
            if ended.status.startswith("finished"):
                return ended
            print(f"bouquet: the log of run {run_id} has broken off; the run goes on", flush=True)
            for number, line in enumerate(_lines([str(FLWR), "log", run_id, NAME, "--stream"])):
                if number > shown:  # the first line is about the connection
                    print(line, end="", flush=True)
                    shown += 1
                    deadline = time.monotonic() + PATIENCE
        except RunError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def outcome(run_id: str) -> Outcome:
    """Ask the SuperLink how a run ended: `flwr run` itself exits 0 whatever happened to the run."""
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
            f"run {run_id}: its status is not known ({answer.stderr.strip() or answer.stdout.strip()})",
            f"ask for it again: flwr ls {NAME} --run-id {run_id}",
        ) from error


def summary(results: Path, ended: Outcome) -> str:
    """Return the table of rounds and where the model and the plot are.

    Raises
    ------
    RunError
        The run failed, or it left no model: names the nodes and the reasons where they are known.
    """
    folder = results / ended.run_id
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        metrics = None
    if ended.status != "finished:completed":
        raise RunError(f"run {ended.run_id} ended as {ended.status}: {ended.details}", _mend(metrics))
    if metrics is None or not (folder / "final_model.keras").exists():
        raise RunError(f"run {ended.run_id} ended without a model in {folder}", _mend(metrics))
    return "\n".join([table(metrics), "", *(f"{what:<8}{folder / name}" for what, name in LEFT)])


COLUMNS = ("round", "train nodes", "train_loss", "train_acc", "eval nodes", "eval_loss", "eval_acc", "seconds")


def table(metrics: dict[str, Any]) -> str:
    """Return the rounds of a `metrics.json` as a table, a line a round."""
    rows = [COLUMNS, *(_row(entry) for entry in metrics["rounds"])]
    lines = ["  ".join(f"{cell:>{len(name)}}" for cell, name in zip(row, COLUMNS, strict=True)) for row in rows]
    if central := metrics["rounds"] and metrics["rounds"][-1].get("central"):
        values = ", ".join(f"{name} {value:.4f}" for name, value in central.items())
        lines.append(f"the global model on the test split: {values}")
    if changes := metrics.get("fleet-changes"):
        happened = [change["what"] for change in changes]
        lines.append(
            f"{metrics['num-supernodes']} SuperNodes at the start, then {happened.count('came')} came and "
            f"{happened.count('went')} went: `fleet-changes` in metrics.json names them"
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


def _mend(metrics: dict[str, Any] | None) -> str:
    reasons = {
        f"node {node_id}: {reason.strip().splitlines()[-1]}"
        for entry in (metrics or {}).get("rounds", ())
        for phase in ("train", "evaluate")
        for node_id, reason in entry[phase]["errors"].items()
    }
    shown = "; ".join(sorted(reasons)[:5])
    return f"{shown}; the whole story: make logs" if shown else "the whole story: make logs"
