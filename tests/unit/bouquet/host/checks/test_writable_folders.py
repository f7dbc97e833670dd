"""The folders that the commands write to, before anything is started."""

from pathlib import Path

import pytest

from bouquet.errors import SettingError
from bouquet.host.checks.writable_folders import writable_folders
from bouquet.settings.host import HostSettings

NAMES = ("RESULTS", "FLWR_HOME", "BOUQUET_HOME")


def test_folders_that_can_be_created_are_fine_and_are_not_created(tmp_path: Path) -> None:
    settings = HostSettings.read({name: str(tmp_path / "new" / name) for name in NAMES})
    assert writable_folders(settings) == "RESULTS, FLWR_HOME, BOUQUET_HOME can be written"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_below_a_file_or_on_a_read_only_file_system_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fine = {each: str(tmp_path / each) for each in NAMES}
    with pytest.raises(SettingError, match=f"^{name}=.*: {tmp_path}/file is not a folder; set {name} to another"):
        writable_folders(HostSettings.read(fine | {name: str(tmp_path / "file" / "x")}))
    with pytest.raises(SettingError, match=f"^{name}=/proc/sys/x: /proc/sys cannot be written; give yourself"):
        writable_folders(HostSettings.read(fine | {name: "/proc/sys/x"}))
