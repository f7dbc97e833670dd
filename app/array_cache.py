"""An on-disk cache of arrays, shared by processes: one `.npz` file for each entry, within a limit of bytes.

An entry has the arrays, their checksums and its key, so a damaged or foreign file counts as a miss and is replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np
from flwr.common import log
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Key = tuple[object, ...]

FORMAT = 2
"""Version of the contents of an entry: increase it when the arrays for the same key change."""
UNFINISHED_SECONDS = 3600.0
"""Age at which a file that is still being written is left over from a process that was killed."""
_ENTRY, _MAKING = re.compile(r"[0-9a-f]{32}\.npz"), ".making-"
_EARLIER = re.compile(r"[0-9a-f]{32}|\.removing-.*")  # folders of FORMAT 1


def load_or_make(folder: str | Path, key: Key, make: Callable[[], Arrays], limit_bytes: int | None = None) -> Arrays:
    """Return the arrays cached under `key`; on a miss, the arrays that `make` returns, which are then stored.

    Args:
        folder: The cache. If it is not writable, a warning is logged.
        key: All values that the arrays depend on.
        make: Makes the arrays.
        limit_bytes: How much the cache may take; None for no limit. The entries that were not used for longest are
            removed, but not the one that was just stored.
    """
    text = json.dumps([FORMAT, *key])
    entry = Path(folder) / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # no entry, or a damaged one
        with np.load(entry, allow_pickle=False) as stored:
            arrays: Arrays = dict(stored)
        if str(arrays.pop("key")) == text:
            with suppress(OSError):
                os.utime(entry)  # its time is that of the last use
            return arrays
    arrays = make()
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        making = entry.with_name(f"{_MAKING}{os.urandom(6).hex()}")
        try:
            with making.open("wb") as file:
                np.savez(file, key=np.array(text), **arrays)  # type: ignore[arg-type]  # its flag `allow_pickle`
            making.replace(entry)
        finally:
            making.unlink(missing_ok=True)
        _shrink(entry, limit_bytes)
    except OSError as error:
        log(WARNING, "BOUQUET_CACHE_DIR=%s: cannot be written, continuing without the cache (%s)", folder, error)
    return arrays


def _shrink(stored: Path, limit_bytes: int | None) -> None:
    """Remove the oldest entries above the limit, and what killed processes and earlier releases left."""
    entries = []
    for path in stored.parent.iterdir():
        with suppress(FileNotFoundError):  # another process has removed it
            status = path.stat()
            if _ENTRY.fullmatch(path.name):
                entries.append((path == stored, status.st_mtime, status.st_size, path))
            elif path.name.startswith(_MAKING) and time.time() - status.st_mtime > UNFINISHED_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif _EARLIER.fullmatch(path.name):
                shutil.rmtree(path)
    total = 0
    for is_stored, _, size, path in sorted(entries, reverse=True):
        total += size
        if limit_bytes is not None and total > limit_bytes and not is_stored:
            path.unlink(missing_ok=True)
