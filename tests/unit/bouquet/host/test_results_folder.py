"""The user's folder for results: checked before a run, complete or not there afterwards, never cleared."""

from pathlib import Path

import pytest

from bouquet.errors import FleetError, SettingError
from bouquet.host.results_folder import check_results, incoming

HINT = "the fleet keeps the results: free some space or set RESULTS to another folder, then: make results"


def stage(folder: Path, run_id: str, **files: str) -> None:
    (folder / run_id).mkdir()
    for name, content in files.items():
        (folder / run_id / name).write_text(content)


def test_a_folder_that_can_be_written_is_created_and_left_empty(tmp_path: Path) -> None:
    check_results(tmp_path / "my results" / "é")
    assert list((tmp_path / "my results" / "é").iterdir()) == []


def test_a_folder_below_a_file_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError) as refused:
        check_results(tmp_path / "file" / "results")
    expected = f"RESULTS={tmp_path}/file/results: cannot be written (Not a directory); give a folder"
    assert str(refused.value).startswith(expected)


def test_a_folder_on_a_read_only_file_system_is_refused_before_the_run() -> None:
    with pytest.raises(SettingError, match="RESULTS=/proc/results: cannot be written"):
        check_results(Path("/proc/results"))


def test_results_appear_only_when_all_are_copied(tmp_path: Path) -> None:
    with incoming(tmp_path) as staged:
        stage(staged, "1", metrics="a")
        assert not (tmp_path / "1").exists()
        (staged / "latest").symlink_to("1")
    assert (tmp_path / "latest" / "metrics").read_text() == "a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "latest"]


def test_an_interrupted_copy_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), incoming(tmp_path) as staged:
        stage(staged, "1", metrics="half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_second_copy_replaces_the_files_and_keeps_the_users(tmp_path: Path) -> None:
    stage(tmp_path, "1", metrics="old", notes="mine")
    with incoming(tmp_path) as staged:
        stage(staged, "1", metrics="new")
    assert ((tmp_path / "1" / "metrics").read_text(), (tmp_path / "1" / "notes").read_text()) == ("new", "mine")


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_latest_that_is_the_users_own_stays(tmp_path: Path, kind: str) -> None:
    latest = tmp_path / "latest"
    if kind == "folder":
        latest.mkdir()
    elif kind == "file":
        latest.write_text("mine")
    else:
        latest.symlink_to("/home/me/papers")
    with incoming(tmp_path) as staged:
        stage(staged, "1", metrics="a")
        (staged / "latest").symlink_to("1")
    assert (tmp_path / "1" / "metrics").exists()
    assert (latest.is_dir(), latest.is_file(), latest.is_symlink()) == (
        kind == "folder",
        kind == "file",
        kind == "link",
    )


def test_latest_moves_to_the_newest_run(tmp_path: Path) -> None:
    for run_id in ("1", "2"):
        with incoming(tmp_path) as staged:
            stage(staged, run_id)
            (staged / "latest").symlink_to(run_id)
    assert str((tmp_path / "latest").readlink()) == "2"


def test_a_folder_that_cannot_be_written_any_more_loses_no_results(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FleetError) as failed, incoming(tmp_path / "file"):
        pass
    assert str(failed.value).endswith(HINT)
