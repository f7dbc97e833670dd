"""The rules of the run-config, ``[tool.flwr.app.config]`` in `pyproject.toml`, which Flower does not check."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedProx, FedYogi, Krum

DEFAULT = ""  # a parameter that is not given: Flower's own default applies
OPTIMIZER = ("eta", "beta-1", "beta-2", "tau")
STRATEGIES: dict[str, tuple[type[FedAvg], tuple[str, ...]]] = {  # with their parameters
    "fedavg": (FedAvg, ()),
    "fedprox": (FedProx, ("proximal-mu",)),
    "fedadam": (FedAdam, OPTIMIZER),
    "fedyogi": (FedYogi, OPTIMIZER),
    "fedmedian": (FedMedian, ()),
    "krum": (Krum, ("num-malicious-nodes",)),
}
PARTITIONERS: dict[str, tuple[str, ...]] = {"iid": (), "dirichlet": ("alpha",), "pathological": ("classes-per-node",)}
# These have no default in Flower, or, as FedProx's, one that makes it another strategy.
REQUIRED = {"fedprox": "proximal-mu", "dirichlet": "alpha", "pathological": "classes-per-node"}

# For each key: its types, a check, the rule in words, an example.
Rule = tuple[tuple[type, ...], Callable[[Any], bool], str, str]
WHOLE, NUMBER, TEXT = (int,), (int, float), (str,)
COUNT = (WHOLE, lambda value: value >= 1, "a whole number of at least 1")
POSITIVE = (NUMBER, lambda value: 0 < value < math.inf, "a number over 0")
DECAY = (NUMBER, lambda value: 0 <= value < 1, "a number of at least 0 and under 1")
RULES: dict[str, Rule] = {
    "num-server-rounds": (*COUNT, "3"),
    "local-epochs": (*COUNT, "1"),
    "batch-size": (*COUNT, "32"),
    "learning-rate": (*POSITIVE, "0.005"),
    "fraction-train": (NUMBER, lambda value: 0 < value <= 1, "over 0 and at most 1", "0.5"),
    "verbose": ((bool,), lambda _: True, "true or false", "false"),
    "dataset": (TEXT, lambda value: value.strip() != "", "a non-empty string", "'uoft-cs/cifar10'"),
    "seed": (WHOLE, lambda value: 0 <= value < 2**31, "a whole number from 0 to 2147483647", "42"),
    "central-evaluation": (TEXT, ("off", "final", "every-round").__contains__, "off, final or every-round", "'final'"),
    "strategy": (TEXT, STRATEGIES.__contains__, f"one of {', '.join(STRATEGIES)}", "'fedavg'"),
    "proximal-mu": (*POSITIVE, "0.1"),
    "eta": (*POSITIVE, "0.1"),
    "beta-1": (*DECAY, "0.9"),
    "beta-2": (*DECAY, "0.99"),
    "tau": (*POSITIVE, "0.001"),
    "num-malicious-nodes": (WHOLE, lambda value: value >= 0, "a whole number of at least 0", "1"),
    "partitioner": (TEXT, PARTITIONERS.__contains__, f"one of {', '.join(PARTITIONERS)}", "'iid'"),
    "alpha": (*POSITIVE, "0.5"),
    "classes-per-node": (WHOLE, range(1, 11).__contains__, "a whole number from 1 to 10", "2"),
}


class SettingError(ValueError):
    """A setting has an invalid value; the message names the setting, the value, the problem and the fix."""

    def __init__(self, name: str, value: object, problem: str, hint: str) -> None:
        super().__init__(f"{name}={value}: {problem}; {hint}")


def check_run_config(config: Mapping[str, Any]) -> None:
    """Raise a `SettingError` for a value of the wrong type or out of range, or for values that do not fit together."""
    owners = {name: keys for name, (_, keys) in STRATEGIES.items()} | PARTITIONERS
    parameters = {key: [name for name in owners if key in owners[name]] for keys in owners.values() for key in keys}
    for key, (types, is_valid, rule, example) in RULES.items():
        value = config[key]
        if not (type(value) in types and is_valid(value)) and not (key in parameters and value == DEFAULT):
            raise SettingError(key, value, f"must be {rule}", f'give e.g. --run-config "{key}={example}"')
    chosen = (config["strategy"], config["partitioner"])
    for key, names in parameters.items():
        if config[key] != DEFAULT and not set(names) & set(chosen):
            problem = f"is for {' and '.join(names)} only, and this run has {' and '.join(chosen)}"
            raise SettingError(key, config[key], problem, f"leave it out, or choose {' or '.join(names)}")
        if config[key] == DEFAULT and key in (REQUIRED.get(name) for name in chosen):
            hint = f'give e.g. --run-config "{key}={RULES[key][-1]}"'
            raise SettingError(key, "", f"{' and '.join(chosen)} need a value", hint)


def check_krum(config: Mapping[str, Any], num_nodes: int) -> None:
    """Raise a `SettingError` if too few nodes train in a round: Krum tolerates f malicious nodes of 2f + 3."""
    malicious, training = config["num-malicious-nodes"] or 0, max(int(num_nodes * config["fraction-train"]), 1)
    if config["strategy"] == "krum" and training < 2 * malicious + 3:
        problem = f"krum needs {2 * malicious + 3} nodes that train in a round, but {training} of {num_nodes} do"
        raise SettingError("num-malicious-nodes", malicious, problem, "give a larger fraction-train or more SuperNodes")
