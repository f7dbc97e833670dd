"""Whether the commands can write where they will write: results, Flower's folder, a process fleet's files."""

import os
from collections.abc import Iterator
from pathlib import Path

from bouquet.errors import SettingError
from bouquet.settings.host import HostSettings


def writable_folders(settings: HostSettings) -> str:
    """Check the folders of RESULTS, FLWR_HOME and BOUQUET_HOME; create nothing.

    Returns:
        One line that names them.

    Raises:
        SettingError: A folder cannot be created or written.
    """
    folders = {"RESULTS": settings.results, "FLWR_HOME": settings.flower_home, "BOUQUET_HOME": settings.home}
    for name, folder in folders.items():
        nearest = next(each for each in _upwards(folder) if os.path.lexists(each))
        if not nearest.is_dir():
            raise SettingError(name, folder, f"{nearest} is not a folder", f"set {name} to another folder")
        if not os.access(nearest, os.W_OK | os.X_OK):
            hint = f"give yourself write access to {nearest}, or set {name} to another folder"
            raise SettingError(name, folder, f"{nearest} cannot be written", hint)
    return f"{', '.join(folders)} can be written"


def _upwards(folder: Path) -> Iterator[Path]:
    absolute = folder.absolute()
    yield from (absolute, *absolute.parents)
