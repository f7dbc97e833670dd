"""What is shown of a run's results: tables, nodes that failed, files; and when a run is an error."""

import json
from pathlib import Path
from typing import Any

import pytest

from bouquet.errors import RunError
from bouquet.host import run_summary
from bouquet.host.run import Outcome
from bouquet.host.run_summary import check_outcome, failures, read_metrics, summary, terminal_width


def phase(replies: int, failures: int = 0, **metrics: float) -> dict[str, Any]:
    errors = {
        str(90 + n): f"<class 'ValueError'> on SuperNode {90 + n} (partition-id {n})\nTraceback\nValueError: boom {n}\n"
        for n in range(failures)
    }
    return {"metrics": metrics, "replies": replies, "failures": failures, "seconds": 1.0, "nodes": {}, "errors": errors}


def metrics(failures: int = 0) -> dict[str, Any]:
    rounds = [
        {
            "round": n,
            "train": phase(5 - failures, failures, train_loss=2.0),
            "evaluate": phase(10, eval_acc=0.3),
            "central": None,
            "seconds": 12.5,
        }
        for n in (1, 2)
    ]
    return {"run-id": "7", "rounds": rounds, "exchanges": []}


def leave(folder: Path, contents: dict[str, Any]) -> Path:
    (folder / "metrics.json").write_text(json.dumps(contents))
    return folder


def test_a_run_shows_its_rounds_and_its_files_with_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "loss.svg").write_bytes(b"x" * 1536)
    (tmp_path / "model.npz").write_bytes(b"x" * 3 * 1024**2)
    (tmp_path / "empty").touch()
    shown = summary(leave(tmp_path, metrics()), 120).split("\n\n")
    assert shown[0].splitlines()[1] == "    1   5 of 5      2.0000   10 of 10    0.3000     12.5"
    files = shown[1].splitlines()
    assert files[0] == f"results in {tmp_path}:"
    assert [line.split(maxsplit=1) for line in files[1:]] == [
        ["empty", "0 B"],
        ["metrics.json", f"{(tmp_path / 'metrics.json').stat().st_size} B"],
        ["model.npz", "3.0 MiB"],
        ["plots/loss.svg", "1.5 KiB"],
    ]


def test_of_many_files_twenty_are_listed(tmp_path: Path) -> None:
    for n in range(25):
        (tmp_path / f"{n:02}").touch()
    lines = summary(tmp_path, 120).splitlines()
    assert [line.split()[0] for line in lines[1:21]] == [f"{n:02}" for n in range(20)]
    assert lines[21:] == ["  and 5 more"]


def test_an_app_with_its_own_loop_shows_its_exchanges(tmp_path: Path) -> None:
    exchange = {"exchange": 1, "message-type": "query", **phase(3)}
    shown = summary(leave(tmp_path, {"run-id": "7", "rounds": [], "exchanges": [exchange]}), 120)
    assert "query  3 of 3" in shown
    assert "round" not in shown


def test_an_exchange_next_to_rounds_is_in_the_file_alone(tmp_path: Path) -> None:
    exchange = {"exchange": 1, "message-type": "query", **phase(3)}
    assert "query" not in summary(leave(tmp_path, {**metrics(), "exchanges": [exchange]}), 120)


def test_a_run_that_left_nothing_says_so(tmp_path: Path) -> None:
    assert summary(tmp_path / "7", 120) == f"the run left no files in {tmp_path / '7'}"


def test_the_summary_counts_the_nodes_that_joined_and_left(tmp_path: Path) -> None:
    assert "at the start" not in summary(leave(tmp_path, metrics()), 120)
    changes = [{"what": "joined"}, {"what": "left"}, {"what": "joined"}]
    shown = summary(leave(tmp_path, metrics() | {"num-supernodes": 10, "fleet-changes": changes}), 120)
    assert "10 SuperNodes at the start, then 2 joined and 1 left; metrics.json names them under" in shown


def test_a_node_that_failed_is_named_once_with_its_partition_and_its_reason(tmp_path: Path) -> None:
    assert failures(metrics(failures=2)) == [
        "round 1, train: node 90 (partition-id 0): ValueError: boom 0",
        "round 1, train: node 91 (partition-id 1): ValueError: boom 1",
    ]
    shown = summary(leave(tmp_path, metrics(failures=2)), 120)
    assert "failed: round 1, train: node 91 (partition-id 1): ValueError: boom 1\n" in shown


@pytest.mark.parametrize("prefix", ["partition-id 4", "SuperNode 90 (partition-id 4)"])
def test_a_reason_in_one_line_names_its_node_once(prefix: str) -> None:
    found = metrics(failures=1)
    found["rounds"] = found["rounds"][:1]
    found["rounds"][0]["train"]["errors"]["90"] = f"{prefix}: no reply within 5 s"
    assert failures(found) == ["round 1, train: node 90 (partition-id 4): no reply within 5 s"]


def test_a_failure_in_jax_shows_the_error_and_not_the_note_below_it() -> None:
    found = metrics(failures=1)
    reason = (
        "<class 'TypeError'>:<'dot_general ...'> on SuperNode 90 (partition-id 4)\n"
        "Traceback (most recent call last):\n"
        "TypeError: dot_general requires contracting dimensions to have the same shape, got (3,) and (4,).\n"
        "--------------------\n"
        "For simplicity, JAX has removed its internal frames from the traceback of the following exception. Set "
        "JAX_TRACEBACK_FILTERING=off to include these."
    )
    found["rounds"] = found["rounds"][:1]
    found["rounds"][0]["train"]["errors"]["90"] = reason
    [line] = failures(found)
    assert line.startswith("round 1, train: node 90 (partition-id 4): TypeError: dot_general requires contracting ")


def test_of_many_failures_five_are_named_and_a_long_reason_is_cut(tmp_path: Path) -> None:
    many = metrics(failures=7)
    many["rounds"][0]["train"]["errors"]["90"] = "x" * 1000
    lines = [line for line in summary(leave(tmp_path, many), 120).splitlines() if line.startswith("failed: ")]
    assert len(lines) == 6
    assert len(lines[0]) < 300
    assert lines[-1] == "failed: and 3 more in metrics.json"


@pytest.mark.parametrize("content", ["not JSON", "[]", '{"accuracy": 0.5}', '{"rounds": 3}'])
def test_a_metrics_json_of_the_apps_own_is_only_a_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(content)
    assert read_metrics(tmp_path) == {}
    assert summary(tmp_path, 120).startswith("results in ")


def test_a_completed_run_is_no_error_whatever_it_left() -> None:
    check_outcome(Outcome("7", "finished:completed", ""), {})


def test_a_failed_run_names_its_status_the_details_the_nodes_and_their_reasons() -> None:
    with pytest.raises(RunError) as failed:
        check_outcome(Outcome("7", "finished:failed", "batch-size=0:\n must be at least 1"), metrics(failures=2))
    assert failed.value.message == "run 7 ended as finished:failed: batch-size=0: must be at least 1"
    assert "node 90 (partition-id 0): ValueError: boom 0" in failed.value.hint
    assert "\n" not in str(failed.value)
    assert failed.value.exit_code == 5


def test_a_failed_run_names_a_node_once_if_the_details_have_it() -> None:
    details = "round 1: no node trained; node 90 (partition-id 0): ValueError: boom 0"
    with pytest.raises(RunError) as failed:
        check_outcome(Outcome("7", "finished:failed", details), metrics(failures=2))
    assert str(failed.value).count("boom 0") == 1
    assert "boom 1" in failed.value.hint


def test_a_run_that_was_stopped_is_an_error_without_details() -> None:
    with pytest.raises(RunError, match="^run 7 ended as finished:stopped; full logs: make logs$"):
        check_outcome(Outcome("7", "finished:stopped", ""), {})


def test_the_width_is_that_of_the_terminal_or_120(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_width() == run_summary.WIDTH
    monkeypatch.setenv("COLUMNS", "70")
    assert terminal_width() == 70
