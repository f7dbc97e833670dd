"""The end of a run: the table of one that succeeded, the error and its reasons of one that did not."""

import json
from pathlib import Path
from typing import Any

import pytest

from bouquet.errors import RunError
from bouquet.host.run import Outcome, submit, summary


def phase(replies: int, failures: int = 0, **metrics: float) -> dict[str, Any]:
    errors = {str(n): f"partition-id {n}: Traceback\nValueError: boom {n}" for n in range(failures)}
    return {"metrics": metrics, "replies": replies, "failures": failures, "seconds": 1.0, "nodes": {}, "errors": errors}


def leave(folder: Path, *, model: bool = True, failures: int = 0) -> None:
    folder.mkdir()
    rounds = [
        {
            "round": n,
            "train": phase(5 - failures, failures, train_loss=2.0, train_acc=0.25),
            "evaluate": phase(10, eval_loss=1.9, eval_acc=0.3),
            "central": {"eval_loss": 1.8, "eval_acc": 0.35},
            "seconds": 12.5,
        }
        for n in (1, 2)
    ]
    metrics = {"rounds": rounds, "dataset": {"name": "cifar10-sample", "source": "sample"}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    if model:
        (folder / "final_model.keras").write_bytes(b"model")


COMPLETED = Outcome("7", "finished:completed", "")


def test_a_completed_run_shows_its_rounds_its_dataset_and_where_its_files_are(tmp_path: Path) -> None:
    leave(tmp_path / "7")
    shown = summary(tmp_path, COMPLETED)
    assert "5 of 5" in shown
    assert "10 of 10" in shown
    assert "0.3000" in shown
    assert "eval_acc 0.3500" in shown
    assert "cifar10-sample (sample)" in shown
    for name in ("final_model.keras", "history.png", "metrics.json"):
        assert str(tmp_path / "7" / name) in shown


def test_the_summary_counts_the_nodes_that_joined_and_left(tmp_path: Path) -> None:
    leave(tmp_path / "7")
    assert "at the start" not in summary(tmp_path, COMPLETED)
    file = tmp_path / "7" / "metrics.json"
    changes = [{"what": "joined"}, {"what": "left"}, {"what": "joined"}]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num-supernodes": 10, "fleet-changes": changes}))
    shown = summary(tmp_path, COMPLETED)
    assert "10 SuperNodes at the start, then 2 joined and 1 left; metrics.json names them under" in shown


def test_a_failed_run_names_its_status_the_details_the_nodes_and_their_reasons(tmp_path: Path) -> None:
    leave(tmp_path / "7", model=False, failures=2)
    with pytest.raises(RunError) as failed:
        summary(tmp_path, Outcome("7", "finished:failed", "batch-size=0: must be at least 1"))
    assert "finished:failed: batch-size=0: must be at least 1" in str(failed.value)
    assert "node 1: ValueError: boom 1" in failed.value.hint
    assert failed.value.exit_code != 0


@pytest.mark.parametrize("metrics_written", [True, False])
def test_a_completed_run_without_a_model_is_a_failure(tmp_path: Path, metrics_written: bool) -> None:
    if metrics_written:
        leave(tmp_path / "7", model=False)
    with pytest.raises(RunError, match="ended without a model"):
        summary(tmp_path, COMPLETED)


FLWR_WITH_AN_INTERRUPTED_LOG = """#!/usr/bin/env python3
import json, pathlib, sys
calls = pathlib.Path(__file__).with_suffix(".calls")
before = calls.read_text().split() if calls.exists() else []
calls.write_text(" ".join([*before, sys.argv[1]]))
if sys.argv[1] == "run":
    print("Using SuperLink: here\\nSuccessfully started run 7\\none")
elif sys.argv[1] == "log":
    print("Using SuperLink: here\\none\\ntwo\\nthree")
elif before.count("ls") == 0:
    sys.exit("nobody answers")
else:
    print(json.dumps({{"runs": [{{"status": "finished:completed" if "log" in before else "running"}}]}}))
"""


def test_an_interrupted_log_stream_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    flwr = tmp_path / "flwr"
    flwr.write_text(FLWR_WITH_AN_INTERRUPTED_LOG.format())
    flwr.chmod(0o755)
    monkeypatch.setattr("bouquet.host.run.FLWR", flwr)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert submit("").status == "finished:completed"
    shown = capfd.readouterr().out.splitlines()
    assert [line for line in shown if line in ("one", "two", "three")] == ["one", "two", "three"]
    assert "bouquet: run 7: log stream interrupted; the run continues" in shown
