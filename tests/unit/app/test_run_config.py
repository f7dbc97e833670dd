from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import SettingError
from app.run_config import RunConfig

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fraction-train", 0),
        ("fraction-train", 2),
        ("fraction-train", -0.5),
        ("fraction-train", float("nan")),
        ("fraction-train", True),
        ("batch-size", 0),
        ("batch-size", 1.5),
        ("batch-size", "ten"),
        ("num-server-rounds", -1),
        ("num-server-rounds", 0),
        ("num-server-rounds", True),
        ("local-epochs", 0),
        ("learning-rate", 0),
        ("learning-rate", float("inf")),
        ("learning-rate", "fast"),
        ("verbose", 1),
        ("dataset", ""),
        ("dataset", 7),
        ("seed", -1),
        ("seed", 2**31),
        ("central-evaluation", "sometimes"),
        ("central-evaluation", False),
        ("fleet-deadline", 0),
        ("round-deadline", -1),
        ("round-deadline", "soon"),
    ],
)
def test_an_invalid_value_is_reported_in_one_line_with_key_value_and_a_hint_that_works(key: str, value: Any) -> None:
    with pytest.raises(SettingError) as raised:
        RunConfig.parse({key: value})
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(f"{key}={value}: must be ")
    _, _, hint = text.partition("--run-config ")
    RunConfig.parse(tomllib.loads(hint.strip('"')))


def test_the_error_reads_as_documented() -> None:
    with pytest.raises(SettingError) as raised:
        RunConfig.parse({"fraction-train": 2})
    expected = 'fraction-train=2: must be over 0 and at most 1; give e.g. --run-config "fraction-train=0.5"'
    assert str(raised.value) == expected


def test_the_defaults_are_those_of_the_project_file() -> None:
    declared = tomllib.loads(PYPROJECT.read_text())["tool"]["flwr"]["app"]["config"]
    assert RunConfig.parse(declared) == RunConfig()
    assert {field.name.replace("_", "-") for field in fields(RunConfig)} == set(declared)


def test_whole_numbers_are_accepted_for_fractions() -> None:
    config = RunConfig.parse({"fraction-train": 1, "learning-rate": 1, "fleet-deadline": 5})
    assert (config.fraction_train, config.learning_rate, config.fleet_deadline) == (1.0, 1.0, 5.0)


def test_parsing_does_not_import_keras() -> None:
    import subprocess
    import sys

    code = "import sys, app.server_app; sys.exit(any(m in sys.modules for m in ('keras', 'tensorflow', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=PYPROJECT.parent, check=False).returncode == 0
