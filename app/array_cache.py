"""An on-disk cache of arrays, shared by processes: one folder per entry, completed first and then renamed into place.

An entry's name is the hash of its key. Its manifest holds the key and the size and checksum of each file. An entry is
read only if its manifest matches, so a truncated or foreign file counts as a miss and the entry is recreated.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable
from logging import WARNING
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.run_log import log

Arrays = dict[str, NDArray[np.uint8]]
Key = tuple[object, ...]

FORMAT = 1
"""Version of the contents of an entry: increase it when the arrays for the same key change."""


def load_or_make(folder: str | Path, key: Key, make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays cached under `key`, memory-mapped; on a miss, the arrays that `make` returns.

    Args:
        folder: The cache.
        key: All values that the arrays depend on.
        make: Makes the arrays on a miss. They are then stored; if the cache is not writable, a warning is logged.
    """
    entry = Path(folder) / hashlib.sha256(_serialize(key).encode()).hexdigest()[:32]
    cached = _load(entry, key)
    if cached is not None:
        return cached
    arrays = make()
    try:
        _store(entry, key, arrays)
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
    with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".making-", ignore_cleanup_errors=True) as made:
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


def _checksum(file: Path) -> int:
    return zlib.crc32(file.read_bytes())


def _serialize(key: Key) -> str:
    return json.dumps([FORMAT, *key])
