"""Only folders with Bouquet's marker are emptied or removed."""

from pathlib import Path

import pytest

from bouquet.errors import SettingError
from bouquet.host.own_folder import MARKER, claim, empty, is_own, remove, replace_link


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_or_empty_folder_becomes_bouquets(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "a b" / "é"):
        claim(folder, "BOUQUET_HOME", folder)
        claim(folder, "BOUQUET_HOME", folder)
        assert is_own(folder)


def test_a_folder_of_the_users_is_refused_in_one_line_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingError) as refused:
        claim(tmp_path, "BOUQUET_VENV", tmp_path)
    expected = f"BOUQUET_VENV={tmp_path}: {tmp_path} has files that are not Bouquet's (thesis.tex, ...); "
    assert str(refused.value) == f"{expected}move it away, or set BOUQUET_VENV to another folder"
    remove(tmp_path)
    with pytest.raises(ValueError, match="is not Bouquet's"):
        empty(tmp_path)
    assert names(tmp_path) == ["thesis.tex"]


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"cannot be used \(Not a directory\)"):
        claim(tmp_path / "file" / "folder", "BOUQUET_HOME", "x")


def test_a_folder_of_an_earlier_version_is_recognised_by_its_lock(tmp_path: Path) -> None:
    (tmp_path / "supervisor.lock").touch()
    claim(tmp_path, "BOUQUET_HOME", tmp_path, earlier_marker="supervisor.lock")
    assert is_own(tmp_path)


def test_an_emptied_folder_keeps_the_marker_and_what_its_links_lead_to(tmp_path: Path) -> None:
    folder, users = tmp_path / "own", tmp_path / "users"
    claim(folder, "BOUQUET_VENV", folder)
    users.mkdir()
    (users / "file").touch()
    (folder / "link").symlink_to(users)
    (folder / "lib").mkdir()
    (folder / "lib" / "module.py").touch()
    empty(folder)
    assert names(folder) == [MARKER]
    assert names(users) == ["file"]


def test_a_link_is_replaced_and_never_made_inside_a_folder_of_the_users(tmp_path: Path) -> None:
    assert replace_link(tmp_path / "link", "one", own=False)
    assert replace_link(tmp_path / "link", "two", own=True)
    assert str((tmp_path / "link").readlink()) == "two"
    (tmp_path / "folder").mkdir()
    assert not replace_link(tmp_path / "folder", "three", own=True)
    assert not replace_link(tmp_path / "link", "three", own=False)
    assert names(tmp_path) == ["folder", "link"]
    assert names(tmp_path / "folder") == []
