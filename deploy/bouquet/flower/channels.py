"""gRPC channels that look for a server that is back after seconds, rather than minutes.

gRPC waits up to 120 s between two attempts to connect, 20 s for one attempt, and Flower up to 20 s between two calls.
"""

from types import SimpleNamespace
from typing import Any

import grpc

from bouquet.flower.replacements import replace

LONGEST_PAUSE = 3  # seconds between two attempts

OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", LONGEST_PAUSE * 1000),
    ("grpc.min_reconnect_backoff_ms", 5000),  # despite its name: for one attempt
)


def reconnect_soon() -> None:
    """Have all channels that Flower opens in this process from now on, and its repeated calls, try again soon."""

    def insecure_channel(target: str, options: Any = None) -> grpc.Channel:
        return grpc.insecure_channel(target, options=[*(options or ()), *OPTIONS])

    def secure_channel(target: str, credentials: Any, options: Any = None) -> grpc.Channel:
        return grpc.secure_channel(target, credentials, options=[*(options or ()), *OPTIONS])

    channels = {"insecure_channel": insecure_channel, "secure_channel": secure_channel}
    replace("flwr.supercore.grpc", "grpc", SimpleNamespace(**{**vars(grpc), **channels}))
    replace("flwr.supercore.retry.grpc_retry", "MAX_RETRY_DELAY", LONGEST_PAUSE)


def without_watch(channel: grpc.Channel) -> grpc.Channel:
    """Keep Flower from watching a channel's state, which it does for a line in the debug log, five times a second."""
    channel.subscribe = lambda callback, try_to_connect=False: None
    return channel
