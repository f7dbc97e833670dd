"""Folders that Bouquet may empty, recognised by a marker file. No other folder of the user's is ever emptied.

The standard library is enough for this module: `make` uses it before there is a Python environment.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bouquet.errors import SettingError
from bouquet.files import TEMPORARY_SUFFIX

MARKER = ".made-by-bouquet"
MARKER_TEXT = "Bouquet made this folder and may empty it at any time. Keep nothing of your own here.\n"


def is_own(folder: Path) -> bool:
    """Whether Bouquet made this folder."""
    return (folder / MARKER).is_file()


def claim(folder: Path, name: str, value: object, *, earlier_marker: str | None = None) -> None:
    """Create a folder with Bouquet's marker, or check that it is Bouquet's.

    Args:
        folder: The folder. An empty one is claimed too.
        name: The setting that the folder comes from.
        value: What the user set it to.
        earlier_marker: A file by which folders of versions before the marker are recognised.

    Raises:
        SettingError: The folder is not empty and not Bouquet's, or it cannot be created.
    """
    hint = f"move it away, or set {name} to another folder"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if is_own(folder):
            return
        foreign = sorted(entry.name for entry in folder.iterdir())
        if foreign and (earlier_marker is None or earlier_marker not in foreign):
            raise SettingError(name, value, f"{folder} has files that are not Bouquet's ({foreign[0]}, ...)", hint)
        (folder / MARKER).write_text(MARKER_TEXT, encoding="utf-8")
    except OSError as error:
        raise SettingError(name, value, f"{folder} cannot be used ({error.strerror})", hint) from error


def empty(folder: Path) -> None:
    """Remove everything in a folder of Bouquet's, except the marker; an interrupted call can be repeated.

    Raises:
        OSError: Something in it cannot be removed.
    """
    if not is_own(folder):
        raise ValueError(f"{folder} is not Bouquet's")
    for entry in list(folder.iterdir()):
        if entry.name == MARKER:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def remove(folder: Path) -> None:
    """Remove a folder if it is Bouquet's; leave any other as it is."""
    if is_own(folder):
        shutil.rmtree(folder, ignore_errors=True)


def replace_link(link: Path, target: Path | str, *, own: bool) -> bool:
    """Make `link` a symbolic link to `target`, in one step.

    Args:
        link: The path of the link.
        target: What it leads to.
        own: Whether a link that is there already may be replaced.

    Returns:
        False if something of the user's is at `link`, which is left as it is: a file, a folder, or another's link.
    """
    if os.path.lexists(link) and not (link.is_symlink() and own):
        return False
    temporary = link.with_name(f".{link.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    temporary.symlink_to(target)
    temporary.replace(link)
    return True
