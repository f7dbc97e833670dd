"""Arrays in NumPy's file format, written one after the other."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from bouquet.files import TEMPORARY_SUFFIX


def write_npz(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write a file that `numpy.load` reads, completely or not at all.

    `numpy.savez` takes the names as its arguments, so it fails for an array that is called `file`.

    Args:
        path: The file, usually with the ending ``.npz``.
        arrays: The arrays, by name.

    Raises:
        OSError: The file cannot be written.
        ValueError: An array holds Python objects.
    """
    unfinished = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        with zipfile.ZipFile(unfinished, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    npy.write_array(file, array, allow_pickle=False)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
