"""Logging: `log(INFO, "text with %d", value)` writes a line to the run's log, in Flower's format."""

import logging

log = logging.getLogger("flwr").log
