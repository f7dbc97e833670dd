"""The run-config, typed and checked: one field per key of ``[tool.flwr.app.config]``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from app.errors import SettingError

CentralEvaluation = Literal["off", "final", "every-round"]


@dataclass(frozen=True)
class RunConfig:
    """What a run was asked to do.

    Attributes:
        num_server_rounds: Rounds of federated averaging, at least 1.
        local_epochs: Epochs a node trains in a round, at least 1.
        batch_size: Images per training step, at least 1.
        learning_rate: Adam's learning rate, over 0.
        fraction_train: Part of the fleet that trains in a round, over 0 and at most 1.
        verbose: Log every local epoch on the node.
        dataset: A dataset on the hub, or a folder in its layout.
        seed: Of the partitions, the 80/20 split, the initial weights, shuffling and dropout.
        central_evaluation: When the ServerApp evaluates the global model on the dataset's test split.
        fleet_deadline: Seconds that round 1 waits for the whole fleet.
        round_deadline: Seconds after which a phase of a round goes on without the nodes still missing.
    """

    num_server_rounds: int = 3
    local_epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.005
    fraction_train: float = 0.5
    verbose: bool = False
    dataset: str = "uoft-cs/cifar10"
    seed: int = 42
    central_evaluation: CentralEvaluation = "off"
    fleet_deadline: float = 120.0
    round_deadline: float = 300.0

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> RunConfig:
        """Check a run-config as Flower hands it over; keys that are left out have their defaults.

        Raises:
            SettingError: A value has the wrong type or is out of range.
        """
        take = _Taker(values)
        return cls(
            num_server_rounds=take.integer("num-server-rounds", cls.num_server_rounds, least=1),
            local_epochs=take.integer("local-epochs", cls.local_epochs, least=1),
            batch_size=take.integer("batch-size", cls.batch_size, least=1),
            learning_rate=take.positive("learning-rate", cls.learning_rate),
            fraction_train=take.fraction("fraction-train", cls.fraction_train),
            verbose=take.switch("verbose", cls.verbose),
            dataset=take.text("dataset", cls.dataset),
            seed=take.integer("seed", cls.seed, least=0, most=2**31 - 1),
            central_evaluation=cast(
                CentralEvaluation,
                take.choice("central-evaluation", cls.central_evaluation, get_args(CentralEvaluation)),
            ),
            fleet_deadline=take.positive("fleet-deadline", cls.fleet_deadline),
            round_deadline=take.positive("round-deadline", cls.round_deadline),
        )


class _Taker:
    """Takes typed values out of a run-config; the default doubles as the example in the error."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def _take(self, key: str, default: Any, rule: str, holds: Callable[[Any], bool]) -> Any:
        value = self.values.get(key, default)
        if not holds(value):
            raise SettingError(key, value, f"must be {rule}", f'give e.g. --run-config "{_toml(key, default)}"')
        return value

    def integer(self, key: str, default: int, *, least: int, most: float = math.inf) -> int:
        rule = f"a whole number of at least {least}" + (f" and at most {most}" if most < math.inf else "")
        return int(self._take(key, default, rule, lambda v: _is_integer(v) and least <= v <= most))

    def positive(self, key: str, default: float) -> float:
        return float(self._take(key, default, "a number over 0", lambda v: _is_number(v) and 0 < v < math.inf))

    def fraction(self, key: str, default: float) -> float:
        return float(self._take(key, default, "over 0 and at most 1", lambda v: _is_number(v) and 0 < v <= 1))

    def switch(self, key: str, default: bool) -> bool:
        return bool(self._take(key, default, "true or false", lambda v: isinstance(v, bool)))

    def text(self, key: str, default: str) -> str:
        return str(self._take(key, default, "a text", lambda v: isinstance(v, str) and v.strip() != ""))

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        rule = "one of " + ", ".join(choices)
        return str(self._take(key, default, rule, lambda v: isinstance(v, str) and v in choices))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # True is an int to Python


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_integer(value)


def _toml(key: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    if isinstance(value, str):
        return f"{key}='{value}'"
    return f"{key}={value}"
