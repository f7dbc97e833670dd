"""gRPC channels and retries that find a restarted server within seconds rather than minutes.

By default gRPC waits up to 120 s between two attempts to connect and 20 s for one attempt, and Flower up to 20 s
between two calls.
"""

from collections.abc import Sequence

import grpc
from flwr.supercore.grpc import GRPC_MAX_MESSAGE_LENGTH
from flwr.supercore.retry import RetryInvoker, exponential

MAX_PAUSE_SECONDS = 3
"""The longest pause between two attempts."""
DEAD_CONNECTION_SECONDS = 10
"""Without a limit of its own, TCP takes 15 minutes to find that a connection is dead."""

OPTIONS = (
    ("grpc.max_send_message_length", GRPC_MAX_MESSAGE_LENGTH),
    ("grpc.max_receive_message_length", GRPC_MAX_MESSAGE_LENGTH),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", MAX_PAUSE_SECONDS * 1000),
    ("grpc.min_reconnect_backoff_ms", 5000),  # despite its name: the time for one attempt
    # A connection on which sent data is not acknowledged for so long is dead. gRPC hands the time to TCP only where
    # keepalive is on. Its pings are rare: servers take more than one in 5 minutes for an attack.
    ("grpc.keepalive_timeout_ms", DEAD_CONNECTION_SECONDS * 1000),
    ("grpc.keepalive_time_ms", 600_000),
)


def open_channel(
    address: str, root_certificates: bytes | None, interceptors: Sequence[grpc.UnaryUnaryClientInterceptor] = ()
) -> grpc.Channel:
    """Return a channel to a server.

    Args:
        address: `host:port` of the server.
        root_certificates: The CA certificates by which to verify the server, in PEM. None: no TLS.
        interceptors: What each call passes through, the first one first.
    """
    if root_certificates is None:
        channel = grpc.insecure_channel(address, options=OPTIONS)
    else:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(root_certificates), options=OPTIONS)
    return grpc.intercept_channel(channel, *interceptors)


def with_quick_retries(invoker: RetryInvoker) -> RetryInvoker:
    """Return the invoker, which now waits for at most 3 s between two calls."""
    invoker.wait_gen_factory = lambda: exponential(max_delay=MAX_PAUSE_SECONDS)
    return invoker
