"""The logger of processes that run Flower: its own, so that all their lines look the same."""

import logging

LOGGER = logging.getLogger("flwr")
"""Flower's logger. Importing `flwr` gives it its handler and format."""
