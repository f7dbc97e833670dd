"""Strategies sample from the nodes that are online, and never wait for one that has left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from logging import WARNING
from typing import Any

from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from bouquet.errors import FleetError
from bouquet.flower.replacements import overridden

SNAPSHOT_SECONDS = 0.5
"""How long a strategy sees the same list of nodes. Flower's own strategies ask again after one second."""
MINIMUMS = ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")
"""How many nodes a strategy waits for; each goes by the name of Flower's argument."""


class NodeSnapshot(Grid):
    """A grid that gives the same list of nodes while a strategy samples.

    Flower's strategies ask the grid twice: for the number of nodes, then for their ids. If a node left in between, they
    would wait until the number is reached again.

    Args:
        grid: The run's grid, to which all else is passed on.
        on_refresh: Gets the number of nodes whenever it is asked for again.
    """

    def __init__(self, grid: Grid, on_refresh: Callable[[int], None]) -> None:
        self._grid = grid
        self.on_refresh = on_refresh
        self._node_ids: list[int] = []
        self._taken: float | None = None

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are online, as of at most `SNAPSHOT_SECONDS` ago."""
        if self._taken is None or time.monotonic() - self._taken > SNAPSHOT_SECONDS:
            self._node_ids = list(self._grid.get_node_ids())
            self.on_refresh(len(self._node_ids))
            self._taken = time.monotonic()
        return list(self._node_ids)

    def __getattr__(self, name: str) -> Any:
        """Return what the run's grid has beyond Flower's interface."""
        return getattr(self._grid, name)

    def set_run(self, run: Any) -> None:
        """Set the run of the run's grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """The run."""
        return self._grid.run

    def create_message(self, *arguments: Any, **options: Any) -> Message:
        """Create a message, as the run's grid does."""
        return self._grid.create_message(*arguments, **options)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages through the run's grid."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies through the run's grid."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], **options: Any) -> Iterable[Message]:
        """Exchange messages through the run's grid."""
        return self._grid.send_and_receive(messages, **options)


def strategies(strategy: Strategy) -> list[Strategy]:
    """Return the strategy, and those that it wraps: differential privacy wraps another strategy."""
    found = [strategy]
    while isinstance(inner := getattr(found[-1], "strategy", None), Strategy) and inner not in found:
        found.append(inner)
    return found


def check_minimums(strategy: Strategy, nodes: int) -> None:
    """Refuse a strategy that would wait for ever for more nodes than the fleet has.

    Args:
        strategy: The strategy.
        nodes: Number of nodes of the run.

    Raises:
        FleetError: It asks for more nodes.
    """
    for each in strategies(strategy):
        for name, minimum in _minimums(each).items():
            if minimum > nodes:
                raise FleetError(
                    f"{type(each).__name__}: {name}={minimum}, but the run has {nodes} SuperNode{'s' * (nodes != 1)}",
                    f"start more (SUPERNODES={minimum} make up), or give a smaller {name}",
                )


@contextmanager
def sampling(strategy: Strategy, grid: Grid) -> Iterator[NodeSnapshot]:
    """Give the grid that a strategy samples from. In the block, the strategy asks for no more nodes than are online.

    Args:
        strategy: The strategy; its minimums are lowered, and restored after the block.
        grid: The run's grid.

    Yields:
        The grid for the strategy.
    """
    wanted = [(each, minimums) for each in strategies(strategy) if (minimums := _minimums(each))]
    with ExitStack() as lowered:

        def lower(online: int) -> None:
            lowered.close()
            for each, minimums in wanted:
                reachable = {name: min(minimum, max(online, 1)) for name, minimum in minimums.items()}
                lowered.enter_context(overridden(each, **reachable))

        snapshot = NodeSnapshot(grid, lower)
        online = len(list(snapshot.get_node_ids()))
        for each, minimums in wanted:
            _log_lowered(each, minimums, online)
        try:
            yield snapshot
        finally:
            snapshot.on_refresh = lambda online: None  # the strategy may keep the grid


def _minimums(strategy: Strategy) -> dict[str, int]:
    values = {name: getattr(strategy, name, None) for name in MINIMUMS}
    return {name: value for name, value in values.items() if isinstance(value, int)}


def _log_lowered(strategy: Strategy, minimums: dict[str, int], online: int) -> None:
    too_high = ", ".join(f"{name}={minimum}" for name, minimum in minimums.items() if minimum > max(online, 1))
    if too_high:
        name = type(strategy).__name__
        log(WARNING, "%s: %s, but only %d SuperNodes are online: it samples from these", name, too_high, online)
