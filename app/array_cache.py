"""An on-disk cache of arrays, shared by processes: one folder per entry, completed first and then renamed into place.

An entry's name is the hash of its key. Its manifest holds the key and the size and checksum of each file. An entry is
read only if its manifest matches, so a truncated or foreign file counts as a miss and the entry is recreated.

The cache is bounded: after an entry is stored, those that were not used for longest are removed until the rest fits the
limit. A process that has mapped a removed entry keeps its arrays; one that is just opening it has a miss.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from logging import WARNING
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.run_log import log

Arrays = dict[str, NDArray[np.uint8]]
Key = tuple[object, ...]

FORMAT = 1
"""Version of the contents of an entry: increase it when the arrays for the same key change."""

UNFINISHED_SECONDS = 3600.0
"""Age at which an entry that is still being made or removed is left over from a process that was killed."""
_ENTRY = re.compile(r"[0-9a-f]{32}")
_MAKING, _REMOVING = ".making-", ".removing-"


def load_or_make(folder: str | Path, key: Key, make: Callable[[], Arrays], limit_bytes: int | None = None) -> Arrays:
    """Return the arrays cached under `key`, memory-mapped; on a miss, the arrays that `make` returns.

    Args:
        folder: The cache.
        key: All values that the arrays depend on.
        make: Makes the arrays on a miss. They are then stored; if the cache is not writable, a warning is logged.
        limit_bytes: How much the cache may take; None for no limit. The entry that was just stored always stays.
    """
    entry = Path(folder) / hashlib.sha256(_serialize(key).encode()).hexdigest()[:32]
    cached = _load(entry, key)
    if cached is not None:
        with suppress(OSError):
            os.utime(entry)  # its time is that of the last use
        return cached
    arrays = make()
    try:
        _store(entry, key, arrays)
        _remove_unfinished(entry.parent)
        if limit_bytes is not None:
            _shrink(entry.parent, limit_bytes, keep=entry)
    except OSError as error:
        log(WARNING, "BOUQUET_CACHE_DIR=%s: cannot be written, continuing without the cache (%s)", folder, error)
    return arrays


def _load(entry: Path, key: Key) -> Arrays | None:
    try:
        manifest = json.loads((entry / "manifest.json").read_text())
        if manifest["key"] != _serialize(key):
            return None
        arrays = {}
        for name, (size, checksum) in manifest["files"].items():
            file = entry / f"{name}.npy"
            if file.stat().st_size != size or _checksum(file) != checksum:
                return None
            arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no entry, or not a valid one
    return arrays


def _store(entry: Path, key: Key, arrays: Arrays) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=entry.parent, prefix=_MAKING, ignore_cleanup_errors=True) as made:
        making = Path(made) / "entry"
        making.mkdir()
        files = {}
        for name, array in arrays.items():
            file = making / f"{name}.npy"
            np.save(file, array, allow_pickle=False)
            files[name] = (file.stat().st_size, _checksum(file))
        manifest = {"key": _serialize(key), "files": files}
        (making / "manifest.json").write_text(json.dumps(manifest, indent=1))
        try:
            making.rename(entry)
        except OSError:  # an entry exists: an invalid one, or one that another process has just stored
            if _load(entry, key) is None:
                shutil.rmtree(entry, ignore_errors=True)
                making.rename(entry)


def _shrink(folder: Path, limit_bytes: int, keep: Path) -> None:
    """Remove the entries that were not used for longest, until the cache fits the limit.

    Several processes may do this at the same time: an entry is renamed before it is removed, by one of them only.
    """
    entries = sorted(_entries(folder), reverse=True)  # newest first
    total = sum(size for _, path, size in entries if path == keep)
    for _, path, size in entries:
        if path == keep:
            continue
        total += size
        if total > limit_bytes:
            _remove(path)


def _entries(folder: Path) -> Iterator[tuple[float, Path, int]]:
    """Yield the time of the last use, the folder and the size in bytes of each entry."""
    for path in folder.iterdir():
        if _ENTRY.fullmatch(path.name):
            with suppress(OSError):  # removed meanwhile
                size = sum(file.stat().st_size for file in path.iterdir())
                yield path.stat().st_mtime, path, size


def _remove(entry: Path) -> None:
    removing = entry.with_name(f"{_REMOVING}{entry.name}-{os.urandom(6).hex()}")
    with suppress(OSError):  # another process has removed it
        entry.rename(removing)
        shutil.rmtree(removing, ignore_errors=True)


def _remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed have left."""
    for path in folder.iterdir():
        if path.name.startswith((_MAKING, _REMOVING)):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)


def _checksum(file: Path) -> int:
    return zlib.crc32(file.read_bytes())


def _serialize(key: Key) -> str:
    return json.dumps([FORMAT, *key])
