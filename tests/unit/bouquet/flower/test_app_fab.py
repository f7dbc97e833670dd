"""The FAB of an app."""

import io
import zipfile
from pathlib import Path

import pytest

from bouquet.flower.app_fab import build_fab

APPS = Path(__file__).parents[3] / "apps"


def test_a_fab_has_the_files_of_the_app_and_is_the_same_each_time() -> None:
    fab = build_fab(APPS / "numpy_mean")
    with zipfile.ZipFile(io.BytesIO(fab)) as files:
        assert {"pyproject.toml", "numpy_mean/server_app.py"} <= set(files.namelist())
    assert build_fab(APPS / "numpy_mean") == fab


def test_an_app_that_flower_does_not_accept_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "app"\nversion = "1"\n')
    with pytest.raises(ValueError, match="Invalid Flower App configuration") as error:
        build_fab(tmp_path)
    assert "\n" not in str(error.value)
