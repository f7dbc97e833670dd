"""A run's folder and its metrics.json."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bouquet.errors import RunError, SettingError
from bouquet.record import run_record
from bouquet.record.entries import ExchangeEntry, Round, plain_metrics
from bouquet.record.run_folder import RunFolder
from bouquet.record.run_record import RunRecord

ROOT = Path(__file__).parents[4]


def record_in(tmp_path: Path, **fields: Any) -> RunRecord:
    return RunRecord(RunFolder(tmp_path, 2**63), 2**63, **fields)


def written(record: RunRecord) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((record.folder.path / "metrics.json").read_text(), parse_constant=pytest.fail)
    return read


def full_disk(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_keys_are_those_of_the_documentation(tmp_path: Path) -> None:
    example = json.loads((ROOT / "docs" / "metrics.md").read_text().partition("```json\n")[2].partition("```")[0])
    record = record_in(tmp_path, rounds=[Round(1)])
    record.rounds[0].train.add_node(7, 0, {"train_loss": 0.5})
    record.complete()
    read = written(record)
    assert list(read) == list(example)
    assert list(read["rounds"][0]) == list(example["rounds"][0])
    assert list(read["rounds"][0]["train"]) == list(example["rounds"][0]["train"])


def test_what_is_no_mapping_has_no_metrics() -> None:
    assert plain_metrics((0.5, {"accuracy": 0.5})) == plain_metrics(None) == {}


def test_the_keys_of_an_exchange_are_those_of_the_documentation(tmp_path: Path) -> None:
    example = json.loads((ROOT / "docs" / "metrics.md").read_text().split("```json\n")[2].partition("```")[0])
    record = record_in(tmp_path, exchanges=[ExchangeEntry(message_type="query")])
    record.complete()
    assert written(record)["exchanges"][0].keys() == example.keys()


def test_a_run_id_survives_json(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    record.begin()
    assert written(record)["run-id"] == str(2**63)


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    record = record_in(tmp_path, rounds=[Round(1, central={"a": math.nan, "b": [math.inf, 1.0]})])
    record.complete()
    assert written(record)["rounds"][0]["central"] == {"a": None, "b": [None, 1.0]}


def test_the_status_is_interrupted_until_the_outcome_is_written(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    record.begin()
    assert (written(record)["status"], written(record)["error"]) == ("failed", "the run was interrupted")
    record.fail("no node trained")
    assert (written(record)["status"], written(record)["error"]) == ("failed", "no node trained")
    record.complete()
    assert (written(record)["status"], written(record)["error"]) == ("completed", None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time that the record sees, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(run_record, "time", SimpleNamespace(monotonic=lambda: now[0]))
    yield now


def test_a_run_in_progress_is_written_at_most_once_a_second(tmp_path: Path, clock: list[float]) -> None:
    record = record_in(tmp_path)
    record.begin()
    record.rounds.append(Round(1))
    clock[0] += 0.9
    record.update()
    assert written(record)["rounds"] == []
    clock[0] += 0.1
    record.update()
    assert [each["round"] for each in written(record)["rounds"]] == [1]


def test_a_record_that_takes_long_to_write_is_written_less_often(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = record_in(tmp_path)
    writes: list[float] = []

    def slow_write(name: str, content: bytes) -> None:
        clock[0] += 0.5
        writes.append(clock[0])

    monkeypatch.setattr(record.folder, "write", slow_write)
    for _ in range(200):
        clock[0] += 1
        record.update()
    assert writes[1] - writes[0] >= 50
    assert len(writes) == 4


def test_a_full_disk_fails_the_run_at_its_end_and_leaves_the_last_record(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = record_in(tmp_path)
    record.begin()
    clock[0] += 60
    monkeypatch.setattr(os, "write", full_disk)
    record.update()
    with pytest.raises(
        RunError, match=r"metrics\.json: cannot be written \(No space left on device\); free some disk space"
    ):
        record.complete()
    assert [path.name for path in record.folder.path.iterdir()] == ["metrics.json"]
    assert written(record)["status"] == "failed"


def test_a_folder_that_cannot_be_created_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        SettingError, match=r"^BOUQUET_RESULTS_DIR=.*file: cannot be written \(.*\); set BOUQUET_RESULTS"
    ):
        RunFolder(tmp_path / "file", 1)


def test_a_folder_that_cannot_be_written_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_in(tmp_path)
    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(SettingError, match=r"^BOUQUET_RESULTS_DIR=.*cannot be written \(No space left on device\)"):
        record.begin()


def test_latest_points_to_the_newest_run(tmp_path: Path) -> None:
    for run_id in (1, 2):
        RunFolder(tmp_path, run_id)
    assert (tmp_path / "latest").readlink() == Path("2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "latest"]


def test_an_exchange_averages_the_numbers_that_all_nodes_gave() -> None:
    entry = ExchangeEntry()
    entry.add_node(1, 0, {"mean": 1, "only-here": 5, "values": [1, 2]})
    entry.add_node(2, None, {"mean": 2, "values": [3, 4]})
    entry.average()
    assert entry.metrics == {"mean": 1.5}


def test_an_exchange_without_replies_has_no_metrics() -> None:
    entry = ExchangeEntry()
    entry.average()
    assert entry.metrics == {}
