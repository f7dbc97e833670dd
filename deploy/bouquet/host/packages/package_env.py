"""A Python environment with the packages of a list, for the processes of a fleet without containers.

It lies in the user's cache, beside those of the checkouts, and is reused by every fleet with the same list. The
processes take Bouquet itself from their checkout (`PYTHONPATH`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uv import find_uv_bin

from bouquet.errors import HostError
from bouquet.host import own_folder
from bouquet.host.bootstrap.environment import cache_folder
from bouquet.host.bootstrap.package_index import downloads
from bouquet.host.packages.package_list import PackageList

SETTING = "XDG_CACHE_HOME"
COMPLETE = "complete"
"""A file in an environment whose packages are all installed."""
HINT = "fix the error above and retry; for a package mirror or a private CA, see docs/images.md"


def environment_of(packages: PackageList) -> Path:
    """Return where the environment of a list lies: one for each list and version of Python."""
    python = f"py{sys.version_info[0]}{sys.version_info[1]}"
    return cache_folder(os.environ) / f"packages-{packages.digest}-{python}"


def is_installed(folder: Path) -> bool:
    """Whether all packages of an environment are installed, and its Python still exists."""
    return (folder / COMPLETE).exists() and (folder / "bin" / "python").exists()


def ensure_environment(packages: PackageList) -> Path:
    """Return the environment of a list; create it if it does not exist. Another process that creates it is waited for.

    Raises:
        SettingError: Its folder has files that are not Bouquet's, or cannot be created.
        HostError: A package cannot be installed.
    """
    folder = environment_of(packages)
    if is_installed(folder):
        return folder
    own_folder.claim(folder, SETTING, folder)
    with _locked(folder):
        if not is_installed(folder):  # another process has just created it
            own_folder.empty(folder)
            _install(packages, folder)
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an environment: its marker file, which `own_folder.empty` leaves in place."""
    with (folder / own_folder.MARKER).open("r+b") as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)
        yield


def _install(packages: PackageList, folder: Path) -> None:
    uv, python = find_uv_bin(), str(folder / "bin" / "python")
    environment = {
        **downloads(os.environ),
        "UV_COMPILE_BYTECODE": "1",
        "UV_INDEX_STRATEGY": "unsafe-best-match",  # any index will do for a package, because the hash decides
        "UV_PYTHON_DOWNLOADS": "never",
    }
    sync = ("--quiet", "--python", python, "--require-hashes")
    steps = {
        "uv venv": [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)],
        "uv pip sync": [uv, "pip", "sync", *sync, str(packages.path)],
    }
    for step, command in steps.items():
        if subprocess.run(command, env=environment, check=False).returncode:
            raise HostError(f"the packages in {folder} are incomplete: `{step}` failed", HINT)
    shutil.copyfile(packages.path, folder / packages.path.name)
    (folder / COMPLETE).touch()
