"""HF_CACHE: a Hugging Face cache that was brought along, made available in `HF_HOME` by links.

The libraries write into their cache: locks, and the results of `shuffle` and `map`, beside the data. The one that was
brought along is read-only. So `HF_HOME` gets the same folders, with a link to each of its files. All nodes of a
machine share `HF_HOME`, and each of them does this when it starts; the first one finds work to do.
"""

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

from bouquet.errors import HostError, SettingError
from bouquet.files import write_if_changed

PARTS = ("hub", "datasets")
"""The folders of a cache that have data. Others have tokens and code."""
MARKER = ".made-by-bouquet"
"""The file that shows that links were made here; locked while they change."""
NOT_LINKED = (".lock", ".incomplete")
"""Suffixes of files that belong to the process that has filled the cache."""


def is_cache(folder: Path) -> bool:
    """Whether a folder is laid out as `HF_HOME` is."""
    return any((folder / part).is_dir() for part in PARTS)


def link(cache: Path | None, home: Path | None) -> None:
    """Make a cache available in `home`, instead of one that was linked there earlier.

    Args:
        cache: The folder of HF_CACHE; None for none.
        home: The folder of HF_HOME; files of its own stay. None: nothing is done.

    Raises:
        SettingError: The folder is not a cache.
        HostError: `home` cannot be written.
    """
    if home is None or (cache is None and not (home / MARKER).exists()):
        return
    if cache is not None and not is_cache(cache):
        hint = "give a folder as HF_HOME is, for example one that `bouquet dataset` has filled"
        raise SettingError("HF_CACHE", cache, "has neither a folder `datasets` nor a folder `hub`", hint)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / MARKER).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for part in PARTS:
                _remove_links(home / part, cache)
                if cache is not None:
                    _link_files(cache / part, home / part)
    except OSError as error:
        problem = f"HF_CACHE={cache or ''}: its files cannot be linked in {home} ({error.strerror}: {error.filename})"
        raise HostError(problem, "give the fleet's user write access, or empty that folder") from error


def _remove_links(part: Path, cache: Path | None) -> None:
    """Remove the links that lead to another cache, or to a file that it no longer has, and what depends on them.

    Links that the libraries make are relative; ours are absolute.
    """
    emptied: set[Path] = set()
    for name, folders, files in os.walk(part, topdown=False):
        folder = Path(name)
        stale = [folder / each for each in (*folders, *files) if _is_stale(folder / each, cache)]
        if stale and part.name == "datasets" and folder != part:
            shutil.rmtree(folder)  # what was computed from a dataset lies beside it
            emptied.add(folder.parent)
            continue
        for each in stale:
            each.unlink()
        if stale or folder in emptied:
            with suppress(OSError):  # it has other files
                folder.rmdir()
                emptied.add(folder.parent)


def _is_stale(path: Path, cache: Path | None) -> bool:
    if not path.is_symlink():
        return False
    target = path.readlink()
    return target.is_absolute() and not (cache is not None and target.is_relative_to(cache) and path.exists())


def _link_files(source: Path, target: Path) -> None:
    for name, folders, files in os.walk(source):
        folder = Path(name)
        here = target / folder.relative_to(source)
        here.mkdir(parents=True, exist_ok=True)
        linked_folders = [each for each in folders if (folder / each).is_symlink()]
        folders[:] = [each for each in folders if each not in (".locks", *linked_folders)]
        for each in (*files, *linked_folders):
            if "refs" in folder.relative_to(source).parts:  # the library writes to it when the hub has a newer commit
                write_if_changed(here / each, (folder / each).read_bytes())
            elif not each.endswith(NOT_LINKED) and not os.path.lexists(here / each):
                (here / each).symlink_to(folder / each)
        if not folders:
            status = folder.stat()  # `datasets` takes the newest of several versions
            os.utime(here, ns=(status.st_atime_ns, status.st_mtime_ns))
