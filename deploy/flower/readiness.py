"""Ready to serve, learnt from Flower's own log: 1.34 has no hook that says so, and its health service
always answers SERVING. The contract test `tests/unit/deploy/test_flower_contract.py` holds the two messages.
"""

import logging
from collections.abc import Callable

from flwr.common.logger import FLOWER_LOGGER

# The last of the SuperLink's three APIs to start, so that all accept once it does.
SUPERLINK_READY = "Flower Deployment Runtime: Starting Fleet API (gRPC-rere) on %s"
SUPERNODE_READY = "SuperNode ID: %s"


class _Watch(logging.Handler):
    def __init__(self, message: str, then: Callable[[], None]) -> None:
        super().__init__()
        self._message = message
        self._then = then

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == self._message:
            self._then()


def when_logged(message: str, then: Callable[[], None]) -> None:
    """Call `then` each time Flower logs `message` (the format, before its arguments are filled in)."""
    FLOWER_LOGGER.addHandler(_Watch(message, then))
