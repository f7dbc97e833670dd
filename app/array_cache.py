"""An on-disk cache of arrays, shared by processes: a file for each entry, with its key, within a limit of bytes."""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Key = tuple[object, ...]

FORMAT = 2  # increase it when the arrays for the same key change
UNFINISHED_SECONDS = 3600.0  # age at which a folder is left over from a process that was killed, or from FORMAT 1
_ENTRY = re.compile(r"[0-9a-f]{32}\.npz")
_LEFT_OVER = re.compile(r"\.(making|removing)-.*|[0-9a-f]{32}")


def load_or_make(folder: str | Path, key: Key, make: Callable[[], Arrays], limit_bytes: int | None = None) -> Arrays:
    """Return the arrays cached under `key`, all values that they depend on; on a miss, store what `make` returns.

    The entries that were not used for longest are removed, until the rest fits the limit. The new entry always stays.
    """
    text = json.dumps([FORMAT, *key])
    entry = Path(folder) / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
    with suppress(OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):  # none, or a damaged one
        with np.load(entry, allow_pickle=False) as stored:
            arrays: Arrays = dict(stored)
        if str(arrays.pop("key")) == text:
            with suppress(OSError):
                os.utime(entry)  # its time is that of the last use
            return arrays
    arrays = make()
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".making-", ignore_cleanup_errors=True) as making:
            file = Path(making) / "entry.npz"
            # The key is last, so that a damaged directory of the file loses it first.
            np.savez(file, **arrays, key=np.array(text))  # type: ignore[arg-type]  # its flag `allow_pickle`
            file.replace(entry)
        _shrink(entry, limit_bytes)
    except OSError as error:
        logging.getLogger("flwr").warning(
            "BOUQUET_CACHE_DIR=%s: cannot be written, continuing without the cache (%s)", folder, error
        )
    return arrays


def _shrink(new: Path, limit_bytes: int | None) -> None:
    """Remove the oldest entries above the limit, and what killed processes and earlier releases left."""
    entries = []
    for path in new.parent.iterdir():
        with suppress(FileNotFoundError):  # another process has removed it
            status = path.stat()
            if _ENTRY.fullmatch(path.name):
                entries.append((path == new, status.st_mtime, status.st_size, path))
            elif _LEFT_OVER.fullmatch(path.name) and time.time() - status.st_mtime > UNFINISHED_SECONDS:
                shutil.rmtree(path)
    total = 0
    for is_new, _, size, path in sorted(entries, reverse=True):
        total += size
        if limit_bytes is not None and total > limit_bytes and not is_new:
            path.unlink(missing_ok=True)
