"""Flower's own SuperLink and SuperNode (`EXECUTOR=stock`), unchanged but for `bouquet.flower.migrations`.

Their log shows when they are ready: Flower 1.34 has no hook for that, and its health service always answers SERVING.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from flwr.common.logger import FLOWER_LOGGER, log
from flwr.superlink.cli.flower_superlink import flower_superlink
from flwr.supernode.cli.flower_supernode import flower_supernode

from bouquet.flower.migrations import allow_any_path

SUPERLINK_READY = "Flower Deployment Runtime: Starting Fleet API (gRPC-rere) on %s"
"""What Flower logs when the last of the SuperLink's three APIs starts."""
SUPERNODE_READY = "SuperNode ID: %s"
"""What Flower logs once the SuperLink has accepted the node."""


class _LogWatch(logging.Handler):
    """Calls a function with the first argument of each log record that has a certain message."""

    def __init__(self, message: str, then: Callable[[Any], None]) -> None:
        super().__init__()
        self._message = message
        self._then = then

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == self._message:
            self._then(record.args[0] if isinstance(record.args, tuple) and record.args else None)


class StockNode:
    """Follows the fleet's size by ending, to be started again: a stock SuperNode cannot change its node config."""

    def __init__(self) -> None:
        self._supernodes: int | None = None

    def resize(self, supernodes: int) -> None:
        """Note the size that the SuperNode was started with; end at a change."""
        if self._supernodes is not None:
            self.leave(f"the fleet has {supernodes} SuperNodes now, and EXECUTOR=stock learns that when it starts")
        self._supernodes = supernodes

    def leave(self, reason: str) -> None:
        """End now, as on SIGTERM."""
        log(logging.INFO, "Starting over: %s", reason)
        os.kill(os.getpid(), signal.SIGTERM)


def superlink(arguments: Sequence[str], on_serving: Callable[[], None]) -> None:
    """Run `flower-superlink` with its arguments; call `on_serving` once all three APIs accept calls."""
    FLOWER_LOGGER.addHandler(_LogWatch(SUPERLINK_READY, lambda address: on_serving()))
    allow_any_path()
    sys.argv = ["flower-superlink", *arguments]
    flower_superlink()


def supernode(arguments: Sequence[str], on_online: Callable[[int], None]) -> None:
    """Run `flower-supernode` with its arguments; call `on_online` with the node id once it is accepted."""
    FLOWER_LOGGER.addHandler(_LogWatch(SUPERNODE_READY, lambda node_id: on_online(int(node_id))))
    sys.argv = ["flower-supernode", *arguments]
    flower_supernode()
