"""The rules of the run-config, ``[tool.flwr.app.config]`` in `pyproject.toml`, which Flower does not check."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedProx, FedYogi, Krum

DEFAULT = ""
"""Value of a parameter that is not given: the strategy's own default applies."""
Rule = tuple[str, Callable[[Any], bool], str]
"""What a value must be, a check of that, and an example."""
OPTIMIZER = ("eta", "beta-1", "beta-2", "tau")
STRATEGIES: dict[str, tuple[type[FedAvg], tuple[str, ...]]] = {
    "fedavg": (FedAvg, ()),
    "fedprox": (FedProx, ("proximal-mu",)),
    "fedadam": (FedAdam, OPTIMIZER),
    "fedyogi": (FedYogi, OPTIMIZER),
    "fedmedian": (FedMedian, ()),
    "krum": (Krum, ("num-malicious-nodes",)),
}
"""Class and parameters of each `strategy`."""
PARTITIONERS: dict[str, tuple[str, ...]] = {"iid": (), "dirichlet": ("alpha",), "pathological": ("classes-per-node",)}
"""Parameters of each `partitioner`."""
REQUIRED = {"fedprox": "proximal-mu", "dirichlet": "alpha", "pathological": "classes-per-node"}
"""Without it there is no such partitioner, and FedProx is FedAvg."""


class SettingError(ValueError):
    """A setting has an invalid value; the message names the setting, the value, the problem and the fix."""

    def __init__(self, name: str, value: object, problem: str, hint: str) -> None:
        super().__init__(f"{name}={value}: {problem}; {hint}")


def check_run_config(config: Mapping[str, Any]) -> None:
    """Raise a `SettingError` for a value of the wrong type or out of range, or for values that do not fit together."""
    for key, (rule, is_valid, example) in RULES.items():
        if not is_valid(config[key]) and not (key in PARAMETERS and config[key] == DEFAULT):
            raise SettingError(key, config[key], f"must be {rule}", f'give e.g. --run-config "{key}={example}"')
    chosen = (config["strategy"], config["partitioner"])
    allowed = {*STRATEGIES[chosen[0]][1], *PARTITIONERS[chosen[1]]}
    for key, owners in PARAMETERS.items():
        if config[key] != DEFAULT and key not in allowed:
            problem = f"is a parameter of {' and '.join(owners)}, but this run has {' and '.join(chosen)}"
            raise SettingError(key, config[key], problem, f"leave {key} out, or choose {owners[0]}")
    for name in chosen:
        if (key := REQUIRED.get(name, "")) and config[key] == DEFAULT:
            raise SettingError(key, "", f"{name} needs it", f'give e.g. --run-config "{key}={RULES[key][2]}"')


def check_krum(config: Mapping[str, Any], num_nodes: int) -> None:
    """Raise a `SettingError` if Krum cannot tell the malicious nodes: of n that train it tolerates f, n >= 2f + 3."""
    malicious = config["num-malicious-nodes"] or 0
    training = max(int(num_nodes * config["fraction-train"]), 1)
    if config["strategy"] == "krum" and training < 2 * malicious + 3:
        problem = f"krum needs {2 * malicious + 3} nodes that train in a round, but {training} of {num_nodes} do"
        raise SettingError("num-malicious-nodes", malicious, problem, "give more SuperNodes or a larger fraction-train")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(minimum: int, example: int, maximum: float = math.inf) -> Rule:
    rule = f"a whole number of at least {minimum}" + (f" and at most {maximum}" if maximum < math.inf else "")
    return rule, lambda value: _is_number(value) and isinstance(value, int) and minimum <= value <= maximum, str(example)


def _positive(example: float) -> Rule:
    return "a number over 0", lambda value: _is_number(value) and value > 0, str(example)


def _decay(example: float) -> Rule:
    return "a number of at least 0 and under 1", lambda value: _is_number(value) and 0 <= value < 1, str(example)


def _choice(*names: str) -> Rule:
    return "one of " + ", ".join(names), lambda value: isinstance(value, str) and value in names, f"'{names[0]}'"


RULES: dict[str, Rule] = {
    "num-server-rounds": _whole(1, 3),
    "local-epochs": _whole(1, 1),
    "batch-size": _whole(1, 32),
    "learning-rate": _positive(0.005),
    "fraction-train": ("over 0 and at most 1", lambda value: _is_number(value) and 0 < value <= 1, "0.5"),
    "verbose": ("true or false", lambda value: isinstance(value, bool), "false"),
    "dataset": ("a non-empty string", lambda value: isinstance(value, str) and value.strip() != "", "'uoft-cs/cifar10'"),
    "seed": _whole(0, 42, 2**31 - 1),
    "central-evaluation": _choice("off", "final", "every-round"),
    "strategy": _choice(*STRATEGIES),
    "proximal-mu": _positive(0.1),
    "eta": _positive(0.1),
    "beta-1": _decay(0.9),
    "beta-2": _decay(0.99),
    "tau": _positive(0.001),
    "num-malicious-nodes": _whole(0, 1),
    "partitioner": _choice(*PARTITIONERS),
    "alpha": _positive(0.5),
    "classes-per-node": _whole(1, 2, 10),
}
_KEYS = {name: keys for name, (_, keys) in STRATEGIES.items()} | PARTITIONERS
PARAMETERS = {key: [name for name, others in _KEYS.items() if key in others] for keys in _KEYS.values() for key in keys}
"""The strategies or the partitioner that each parameter belongs to."""
