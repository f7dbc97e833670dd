from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from app.run_config import PARTITIONERS, RULES, STRATEGIES, SettingError, check_krum, check_run_config

from .fake_grid import DEFAULTS

OWNERS = {
    "proximal-mu": {"strategy": "fedprox"},
    "eta": {"strategy": "fedadam"},
    "beta-1": {"strategy": "fedyogi"},
    "beta-2": {"strategy": "fedadam"},
    "tau": {"strategy": "fedadam"},
    "num-malicious-nodes": {"strategy": "krum"},
    "alpha": {"partitioner": "dirichlet"},
    "classes-per-node": {"partitioner": "pathological"},
}


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
        ("batch-size", ""),
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
        ("strategy", "fedsgd"),
        ("strategy", 1),
        ("partitioner", "linear"),
        ("proximal-mu", 0),
        ("proximal-mu", "much"),
        ("eta", -0.1),
        ("beta-1", 1),
        ("beta-2", -0.1),
        ("tau", 0),
        ("num-malicious-nodes", -1),
        ("num-malicious-nodes", 0.5),
        ("alpha", 0),
        ("alpha", float("inf")),
        ("classes-per-node", 0),
        ("classes-per-node", 11),
        ("classes-per-node", 2.0),
    ],
)
def test_an_invalid_value_is_reported_in_one_line_with_key_value_and_a_hint_that_works(key: str, value: Any) -> None:
    config = DEFAULTS | OWNERS.get(key, {})
    with pytest.raises(SettingError) as raised:
        check_run_config(config | {key: value})
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(f"{key}={value}: must be ")
    _, _, hint = text.partition("--run-config ")
    check_run_config(config | tomllib.loads(hint.strip('"')))


def test_the_error_reads_as_documented() -> None:
    with pytest.raises(SettingError) as raised:
        check_run_config(DEFAULTS | {"fraction-train": 2})
    expected = 'fraction-train=2: must be over 0 and at most 1; give e.g. --run-config "fraction-train=0.5"'
    assert str(raised.value) == expected


def test_every_key_of_the_project_file_has_a_rule_and_a_valid_default() -> None:
    assert set(RULES) == set(DEFAULTS)
    check_run_config(DEFAULTS)


def test_whole_numbers_are_accepted_for_fractions() -> None:
    check_run_config(DEFAULTS | {"fraction-train": 1, "learning-rate": 1, "partitioner": "dirichlet", "alpha": 1})


@pytest.mark.parametrize("key", OWNERS)
def test_a_parameter_without_its_strategy_or_partitioner_is_refused_with_their_names(key: str) -> None:
    value = tomllib.loads(f"value = {RULES[key][-1]}")["value"]
    with pytest.raises(SettingError, match=f"^{key}={value}: is for .* only, and this run has fedavg and iid; leave"):
        check_run_config(DEFAULTS | {key: value})
    check_run_config(DEFAULTS | {key: value} | OWNERS[key])


@pytest.mark.parametrize("key", ["proximal-mu", "alpha", "classes-per-node"])
def test_a_parameter_that_has_no_default_is_asked_for(key: str) -> None:
    with pytest.raises(SettingError, match=f'^{key}=: .* needs? a value; give e.g. --run-config "{key}='):
        check_run_config(DEFAULTS | OWNERS[key])


@pytest.mark.parametrize("name", [*STRATEGIES, *PARTITIONERS])
def test_every_strategy_and_partitioner_can_be_chosen(name: str) -> None:
    chosen: dict[str, Any] = {"strategy" if name in STRATEGIES else "partitioner": name}
    needed: dict[str, dict[str, Any]] = {
        "fedprox": {"proximal-mu": 0.1},
        "dirichlet": {"alpha": 0.1},
        "pathological": {"classes-per-node": 2},
    }
    check_run_config(DEFAULTS | chosen | needed.get(name, {}))


@pytest.mark.parametrize(
    ("nodes", "malicious", "is_enough"), [(10, "", True), (5, "", False), (10, 1, True), (10, 2, False)]
)
def test_krum_needs_twice_the_malicious_nodes_and_three(nodes: int, malicious: int | str, is_enough: bool) -> None:
    config = DEFAULTS | {"strategy": "krum", "num-malicious-nodes": malicious}  # half of the nodes train
    if is_enough:
        check_krum(config, nodes)
    else:
        with pytest.raises(SettingError, match="krum needs . nodes that train in a round"):
            check_krum(config, nodes)


def test_checking_does_not_import_keras() -> None:
    import subprocess
    import sys

    code = "import sys, app.run_config; sys.exit(any(m in sys.modules for m in ('keras', 'tensorflow', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0
