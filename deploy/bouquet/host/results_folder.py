"""The user's folder for results (`RESULTS`): whether it can be written, and how results of a fleet come into it.

Results are copied into a hidden folder beside their place and moved there at the end: a copy that was interrupted
never looks complete. The fleet keeps its own copy in any case.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bouquet.errors import FleetError, SettingError
from bouquet.files import TEMPORARY_SUFFIX
from bouquet.host.own_folder import replace_link
from bouquet.record.run_folder import LATEST

SETTING_HINT = "give a folder that you can write to: RESULTS=path/to/folder"
COPY_HINT = "the fleet keeps the results: free some space or set RESULTS to another folder, then: make results"


def check_results(folder: Path) -> None:
    """Create the folder and check that files can be written to it; call this before training.

    Raises:
        SettingError: It cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        raise SettingError("RESULTS", folder, f"cannot be written ({_reason(error)})", SETTING_HINT) from error


@contextmanager
def incoming(folder: Path) -> Iterator[Path]:
    """Give an empty folder to copy results into; move them to `folder` when the block ends without an error.

    The block copies results as the fleet has them: one folder per run, and perhaps the link `latest`. Files of the
    user's in `folder` stay, and so does anything called `latest` that is not a link to a run.

    Args:
        folder: The user's folder for results.

    Yields:
        The empty folder, on the same file system.

    Raises:
        FleetError: `folder` cannot be written.
    """
    with _translated(folder):
        folder.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".results-", suffix=TEMPORARY_SUFFIX, dir=folder))
    try:
        yield staged
        with _translated(folder):
            for entry in sorted(staged.iterdir()):
                if entry.is_dir() and not entry.is_symlink():
                    _place(entry, folder / entry.name)
            newest, latest = staged / LATEST, folder / LATEST
            if newest.is_symlink():
                own = latest.is_symlink() and str(latest.readlink()).isdigit()
                replace_link(latest, newest.readlink(), own=own)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _place(staged: Path, target: Path) -> None:
    """Move a folder to its place. Where there is one already, replace its files and keep those of the user's."""
    if not target.exists():
        staged.rename(target)
        return
    for path in sorted(staged.rglob("*")):
        destination = target / path.relative_to(staged)
        if path.is_dir():
            destination.mkdir(exist_ok=True)
        else:
            path.replace(destination)


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FleetError(f"RESULTS={folder}: the results could not be copied ({_reason(error)})", COPY_HINT) from error


def _reason(error: OSError) -> str:
    return error.strerror or os.strerror(error.errno or 0)
