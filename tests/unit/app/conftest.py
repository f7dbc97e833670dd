"""A tiny dataset in the hub's layout, and a clean environment for each test."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from PIL import Image

from app import task

README = """\
---
configs:
- config_name: plain_text
  data_files:
  - split: train
    path: plain_text/train-*
"""

MakeFolder = Callable[..., Path]


def _write(file: Path, count: int, columns: dict[str, str], size: tuple[int, int], first: int) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    rng = np.random.default_rng(first)
    cells = []
    for number in range(first, first + count):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        pixels[0, 0] = [number % 256, number // 256, 7]  # identifies the image
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "png")
        cells.append({"bytes": png.getvalue(), "path": None})
    labels = [number % 10 for number in range(count)]
    table = pa.table(
        {
            columns["img"]: pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            columns["label"]: pa.array(labels, pa.int64()),
        }
    )
    parquet.write_table(table, file)


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> MakeFolder:
    """Return a function that creates a dataset folder of PNG images."""

    def make(
        train: int = 100,
        test: int = 20,
        img: str = "img",
        label: str = "label",
        size: tuple[int, int] = (32, 32),
    ) -> Path:
        folder = tmp_path_factory.mktemp("dataset")
        (folder / "plain_text").mkdir()
        test_split = "  - split: test\n    path: plain_text/test-*\n" if test else ""
        (folder / "README.md").write_text(f"{README}{test_split}---\n")
        columns = {"img": img, "label": label}
        _write(folder / "plain_text" / "train-00000-of-00001.parquet", train, columns, size, first=0)
        if test:
            _write(folder / "plain_text" / "test-00000-of-00001.parquet", test, columns, size, first=train)
        return folder

    return make


@pytest.fixture(scope="session")
def folder(make_folder: MakeFolder) -> Path:
    """Return a dataset folder with 100 train and 20 test images."""
    return make_folder()


@pytest.fixture(autouse=True)
def clean_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give every test the environment of a fresh process, and a current folder of its own."""
    for name in list(os.environ):
        if name.startswith("BOUQUET_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", "/nonexistent")
    monkeypatch.chdir(tmp_path)
    for cached in (task.load_data, task.load_test_data, task._open_dataset):
        cached.cache_clear()
