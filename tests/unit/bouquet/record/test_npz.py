"""The arrays of a run that failed can be read by NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bouquet.record.npz import write_npz


def test_numpy_reads_what_was_written(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "conv.weight": np.ones((2, 3), np.float32),
        "file": np.arange(4),
        "0": np.array(1.5),
    }
    write_npz(tmp_path / "last.npz", arrays)
    read = np.load(tmp_path / "last.npz")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert np.array_equal(read[name], array)
        assert read[name].dtype == array.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["last.npz"]


def test_nothing_remains_of_arrays_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        write_npz(tmp_path / "last.npz", {"a": np.ones(2), "objects": np.array([object()])})
    assert list(tmp_path.iterdir()) == []
