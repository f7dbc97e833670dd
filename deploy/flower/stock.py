"""Flower's own SuperLink and SuperNode, unchanged (`EXECUTOR=stock`), but for knowing when they are ready.

Flower 1.34 has no hook that says so, and its health service always answers SERVING: its log tells.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from flwr.common.logger import FLOWER_LOGGER
from flwr.superlink.cli.flower_superlink import flower_superlink
from flwr.supernode.cli.flower_supernode import flower_supernode

# The last of the SuperLink's three APIs to start, so that all accept once it does.
SUPERLINK_READY = "Flower Deployment Runtime: Starting Fleet API (gRPC-rere) on %s"
SUPERNODE_READY = "SuperNode ID: %s"


class _Watch(logging.Handler):
    def __init__(self, message: str, then: Callable[[Any], None]) -> None:
        super().__init__()
        self._message = message
        self._then = then

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == self._message:
            self._then(record.args[0] if isinstance(record.args, tuple) and record.args else None)


def superlink(arguments: Sequence[str], on_serving: Callable[[], None]) -> None:
    """Run `flower-superlink`; call `on_serving` once all three APIs accept."""
    FLOWER_LOGGER.addHandler(_Watch(SUPERLINK_READY, lambda address: on_serving()))
    sys.argv = ["flower-superlink", *arguments]
    flower_superlink()


def supernode(arguments: Sequence[str], on_online: Callable[[int], None]) -> None:
    """Run `flower-supernode`; call `on_online` with its node id once the SuperLink has registered it."""
    FLOWER_LOGGER.addHandler(_Watch(SUPERNODE_READY, lambda node_id: on_online(int(node_id))))
    sys.argv = ["flower-supernode", *arguments]
    flower_supernode()
