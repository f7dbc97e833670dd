"""Creates the Python environment of a checkout: `make` runs `python -m bouquet.host.bootstrap.environment`.

The environment lies outside the checkout (docs/decisions/0005-environment-outside.md); `.venv` is a link to it. Its
packages have the versions and hashes of uv.lock, from whatever index pip or uv are set up for. The standard library is
enough for this module, because there is no environment yet.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bouquet.errors import HostError, SettingError, report_errors
from bouquet.host import own_folder
from bouquet.host.bootstrap.package_index import downloads

SETTING = "BOUQUET_VENV"
LINK = ".venv"
OLDEST, NEWEST = (3, 11), (3, 13)
"""The Python versions of `requires-python` in pyproject.toml."""
PIP_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
PACKAGES_HINT = "fix the error above and retry; for a package mirror or a private CA, see docs/operations.md"


def environment_folder(project: Path, environ: Mapping[str, str]) -> Path:
    """Return where the environment of a checkout lies: BOUQUET_VENV, or a folder in the user's cache."""
    if chosen := environ.get(SETTING, "").strip():
        return project / Path(chosen).expanduser()
    return cache_folder(environ) / f"venv-{hashlib.sha256(os.fsencode(project)).hexdigest()[:12]}"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return Bouquet's folder in the user's cache."""
    # A relative XDG_CACHE_HOME is to be ignored, says the XDG specification.
    cache = Path(environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "bouquet"


def create(project: Path, environ: Mapping[str, str]) -> None:
    """Create the environment, or recreate it in the same place, and link it as `.venv`.

    Args:
        project: The checkout.
        environ: The environment variables: BOUQUET_VENV, XDG_CACHE_HOME, and what pip and uv read.

    Raises:
        SettingError: The environment's folder or `.venv` has files of the user's.
        HostError: This Python is too old or too new, or a package cannot be installed.
    """
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        problem = f"PYTHON={sys.executable}: this is Python {sys.version_info[0]}.{sys.version_info[1]}"
        raise HostError(f"{problem}, and Bouquet needs 3.11 to 3.13", "name another: PYTHON=python3.11 make")
    folder, link = environment_folder(project, environ), project / LINK
    _check_link(link, folder)
    own_folder.claim(folder, SETTING, folder)
    own_folder.empty(folder)
    _install(project, folder, environ)
    if folder != link:
        own_folder.replace_link(link, folder, own=True)


def _check_link(link: Path, folder: Path) -> None:
    """Check that `.venv` can be replaced: it is missing, Bouquet's, or a link that leads nowhere."""
    if not os.path.lexists(link) or link == folder or own_folder.is_own(link):
        return
    if link.is_symlink() and (not link.exists() or _made_before_markers(link.resolve())):
        return
    raise SettingError(LINK, link, "this is an environment of your own", "move it away: Bouquet makes a link there")


def _made_before_markers(folder: Path) -> bool:
    """Whether version 0.1 made an environment, in the user's cache. The link to it is replaced; the folder stays."""
    return folder.parent.name == "bouquet" and folder.name.startswith("venv-") and (folder / "pyvenv.cfg").exists()


def _install(project: Path, folder: Path, environ: Mapping[str, str]) -> None:
    python, uv = str(folder / "bin" / "python"), str(folder / "bin" / "uv")
    pinned, here = str(folder / "requirements.txt"), ("--quiet", "--python", python)
    export = ("--frozen", "--no-emit-project", "--no-header", "--extra", "host", "--group", "fleet")
    # Compiled now: Ray, for Flower's simulation, gives up on processes that take more than 30 s to import.
    environment = {"UV_COMPILE_BYTECODE": "1", **downloads(environ)}
    # Not `uv sync`: its lock names the index, so it would refuse any mirror. The hashes are checked all the same.
    # The project is built by uv itself, which contains the backend `uv_build`: nothing is downloaded for that.
    steps = {
        "python -m venv": [sys.executable, "-m", "venv", str(folder)],
        "pip install uv": [python, *PIP_INSTALL, "--require-hashes", "-r", str(project / "requirements" / "uv.txt")],
        "uv export": [uv, "export", *here, *export, "--output-file", pinned],
        "uv pip sync": [uv, "pip", "sync", *here, "--require-hashes", pinned],
        "uv pip install": [uv, "pip", "install", *here, "--no-deps", "--offline", "--editable", str(project)],
    }
    for step, command in steps.items():
        if subprocess.run(command, cwd=project, env=environment, check=False).returncode:
            raise HostError(f"the Python environment in {folder} is incomplete: `{step}` failed", PACKAGES_HINT)


def main() -> None:
    """Create the environment of the checkout that this module is in."""
    create(Path(__file__).resolve().parents[4], os.environ)


if __name__ == "__main__":
    report_errors(main)
