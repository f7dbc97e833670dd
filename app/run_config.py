"""The run-config, typed and validated: one field for each key of ``[tool.flwr.app.config]``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from app.exceptions import SettingError

CentralEvaluation = Literal["off", "final", "every-round"]


@dataclass(frozen=True)
class RunConfig:
    """A validated run-config.

    Attributes:
        num_server_rounds: Number of rounds, at least 1.
        local_epochs: Number of epochs that a node trains in a round, at least 1.
        batch_size: Images per training step, at least 1.
        learning_rate: Adam's learning rate, over 0.
        fraction_train: Fraction of the participants that train in a round, over 0 and at most 1.
        verbose: Whether nodes log every local epoch.
        dataset: A dataset on the hub, or a folder in the same layout.
        seed: Seed of the partitions, the 80/20 split, the initial weights, shuffling and dropout.
        central_evaluation: When the ServerApp evaluates the global model on the dataset's test split.
        fleet_deadline: How long round 1 waits for the whole fleet, in seconds.
        round_deadline: How long a phase of a round waits for replies, in seconds; the run continues without the rest.
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
        """Return the run-config with defaults for missing keys.

        Args:
            values: The run-config as Flower passes it.

        Raises:
            SettingError: A value has the wrong type or is out of range.
        """
        read = _Reader(values)
        return cls(
            num_server_rounds=read.integer("num-server-rounds", cls.num_server_rounds, minimum=1),
            local_epochs=read.integer("local-epochs", cls.local_epochs, minimum=1),
            batch_size=read.integer("batch-size", cls.batch_size, minimum=1),
            learning_rate=read.positive("learning-rate", cls.learning_rate),
            fraction_train=read.fraction("fraction-train", cls.fraction_train),
            verbose=read.switch("verbose", cls.verbose),
            dataset=read.text("dataset", cls.dataset),
            seed=read.integer("seed", cls.seed, minimum=0, maximum=2**31 - 1),
            central_evaluation=cast(
                CentralEvaluation,
                read.choice("central-evaluation", cls.central_evaluation, get_args(CentralEvaluation)),
            ),
            fleet_deadline=read.positive("fleet-deadline", cls.fleet_deadline),
            round_deadline=read.positive("round-deadline", cls.round_deadline),
        )


class _Reader:
    """Reads typed values from a run-config; an error gives the default as an example."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def _read(self, key: str, default: Any, rule: str, is_valid: Callable[[Any], bool]) -> Any:
        value = self.values.get(key, default)
        if not is_valid(value):
            raise SettingError(key, value, f"must be {rule}", f'give e.g. --run-config "{_toml(key, default)}"')
        return value

    def integer(self, key: str, default: int, *, minimum: int, maximum: float = math.inf) -> int:
        rule = f"a whole number of at least {minimum}" + (f" and at most {maximum}" if maximum < math.inf else "")
        return int(self._read(key, default, rule, lambda v: _is_integer(v) and minimum <= v <= maximum))

    def positive(self, key: str, default: float) -> float:
        return float(self._read(key, default, "a number over 0", lambda v: _is_number(v) and 0 < v < math.inf))

    def fraction(self, key: str, default: float) -> float:
        return float(self._read(key, default, "over 0 and at most 1", lambda v: _is_number(v) and 0 < v <= 1))

    def switch(self, key: str, default: bool) -> bool:
        return bool(self._read(key, default, "true or false", lambda v: isinstance(v, bool)))

    def text(self, key: str, default: str) -> str:
        return str(self._read(key, default, "a non-empty string", lambda v: isinstance(v, str) and v.strip() != ""))

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        rule = "one of " + ", ".join(choices)
        return str(self._read(key, default, rule, lambda v: isinstance(v, str) and v in choices))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # bool is a subclass of int


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_integer(value)


def _toml(key: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    if isinstance(value, str):
        return f"{key}='{value}'"
    return f"{key}={value}"
