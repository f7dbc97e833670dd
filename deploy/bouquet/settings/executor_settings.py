"""Settings of the executor, which runs apps for the SuperLink and for every SuperNode."""

import os
from dataclasses import dataclass
from typing import Literal, Self

from bouquet.settings.env import Environment, choice, text, whole_number

App = Literal["clientapp", "serverapp"]

VARIABLES = (
    *("EXECUTOR", "EXECUTOR_PRELOAD", "EXECUTOR_WORKERS", "EXECUTOR_IDLE", "EXECUTOR_TIMEOUT"),
    *("EXECUTOR_MESSAGES", "EXECUTOR_GROWTH"),
)
"""The environment variables that `ExecutorSettings` reads."""


@dataclass(frozen=True)
class ExecutorSettings:
    """How an executor runs apps.

    Attributes:
        app: What it runs: ClientApps or ServerApps.
        kind: `warm`: one process per run, forked from a process that has imported the framework
            (`bouquet.executor`). `stock`: Flower's own executor, one process per message.
        preload: Modules that the zygote imports before any run starts. None: those of the installed frameworks
            (`bouquet.executor.frameworks`).
        workers: Largest number of processes at a time. A run keeps its process, so two runs can alternate on two.
        idle_seconds: How long a process waits for its run's next message before it ends.
        task_seconds: How long one task may take; None for no limit.
        messages: How many messages a ClientApp process serves; None for no limit.
        growth_mib: By how many MiB a ClientApp process may grow before it is replaced between two messages; 0 for no
            limit. None: a quarter of the container's memory limit, or 512 without one.
    """

    app: App
    kind: str = "warm"
    preload: tuple[str, ...] | None = None
    workers: int = 2
    idle_seconds: float = 300.0
    task_seconds: float | None = None
    messages: int | None = None
    growth_mib: int | None = None

    @classmethod
    def read(cls, app: App, environment: Environment = os.environ) -> Self:
        """Return the settings from environment variables.

        Raises:
            SettingError: A value is impossible.
        """
        return cls(
            app=app,
            kind=choice(environment, "EXECUTOR", ("warm", "stock")),
            preload=_preload(environment),
            workers=executor_workers(environment),
            idle_seconds=whole_number(environment, "EXECUTOR_IDLE", 300, 1, 86400),
            task_seconds=whole_number(environment, "EXECUTOR_TIMEOUT", 0, 0, 86400) or None,
            messages=whole_number(environment, "EXECUTOR_MESSAGES", 0, 0, 1_000_000) or None,
            growth_mib=_growth_mib(environment),
        )


def executor_workers(environment: Environment) -> int:
    """Return the largest number of processes of one executor; they share the node's GPU memory."""
    return whole_number(environment, "EXECUTOR_WORKERS", 2, 1, 64)


def _preload(environment: Environment) -> tuple[str, ...] | None:
    modules = tuple(text(environment, "EXECUTOR_PRELOAD", "").replace(",", " ").split())
    return () if modules == ("none",) else modules or None


def _growth_mib(environment: Environment) -> int | None:
    if not text(environment, "EXECUTOR_GROWTH", ""):
        return None
    return whole_number(environment, "EXECUTOR_GROWTH", 512, 0, 1_000_000)
