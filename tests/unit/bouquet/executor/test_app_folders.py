"""The working directories of ClientApps."""

from pathlib import Path

from bouquet.executor.app_folders import AppFolders


def test_what_an_earlier_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "apps" / "1").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    folders = AppFolders(tmp_path / "apps")
    assert not folders.of(1).exists()
    assert (tmp_path / "other").exists()


def test_the_folder_of_a_run_that_has_ended_is_removed_once_no_process_uses_it(tmp_path: Path) -> None:
    folders = AppFolders(tmp_path / "apps")
    for run_id in (1, 2):
        folders.of(run_id).mkdir(parents=True)
        (folders.of(run_id) / "checkpoint").write_text("1")
    folders.remove_unused(set())
    assert folders.of(1).exists(), "its run goes on"
    folders.run_ended(1)
    folders.remove_unused({1, 2})
    assert folders.of(1).exists(), "a process is still there"
    folders.remove_unused({2})
    assert not folders.of(1).exists()
    assert folders.of(2).exists()


def test_a_run_without_a_folder_may_end(tmp_path: Path) -> None:
    folders = AppFolders(tmp_path / "apps")
    folders.run_ended(5)
    folders.remove_unused(set())
    folders.remove_all()
