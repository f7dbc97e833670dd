"""Held calls: a client asks the server, in a call's metadata, to answer only once there is something to answer.

A held call occupies one thread of the server and costs nothing else: no timer, no poll. The server limits the time. The
limit is well below the time after which idle connections are cut (Flower's gRPC keepalive is 210 s). An event that was
missed, such as a message stored by another process, is noticed after that time at the latest. Stock servers ignore the
metadata.

The server also limits the number of held calls (`HeldCalls`), because other calls need threads, too. One more call is
answered at once, and its client asks again after some seconds, as it asks a stock server.
"""

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from bouquet.flower.notifier import CallerGoneError, KeyedNotifier

HOLD_HEADER = "bouquet-hold"

_requested = threading.local()


@contextmanager
def holding(seconds: float) -> Iterator[None]:
    """Ask the server to hold the calls that this thread makes within the block."""
    _requested.seconds = seconds
    try:
        yield
    finally:
        _requested.seconds = 0.0


class HoldClientInterceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc] # grpc has no types
    """Sends the request of `holding` in the metadata of each call."""

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        """Add the hold to the metadata of one call."""
        if seconds := getattr(_requested, "seconds", 0.0):
            metadata = (*(client_call_details.metadata or ()), (HOLD_HEADER, str(seconds)))
            client_call_details = client_call_details._replace(metadata=metadata)
        return continuation(client_call_details, request)


def requested_hold(context: grpc.ServicerContext, limit: float, default: float = 0.0) -> float:
    """Return for how many seconds the caller wants the call to be held, from 0 to `limit`."""
    metadata = dict(context.invocation_metadata() or ())
    try:
        return max(0.0, min(float(metadata.get(HOLD_HEADER, default)), limit))
    except ValueError:
        return 0.0


class HeldCalls:
    """Limits how many calls of a server are held at a time."""

    def __init__(self, limit: int) -> None:
        self._free = threading.Semaphore(limit)

    @contextmanager
    def seconds(self, wanted: float) -> Iterator[float]:
        """Yield for how many seconds to hold a call within the block: `wanted`, or 0 if too many are held."""
        is_free = self._free.acquire(blocking=False)
        try:
            yield wanted if is_free else 0.0
        finally:
            if is_free:
                self._free.release()


def hold(
    notifier: KeyedNotifier, key: Hashable, ready: Callable[[], bool], seconds: float, context: grpc.ServicerContext
) -> None:
    """Hold a call until `ready()`, which is called again at each notification of `key`, or for `seconds`.

    It aborts a call whose caller has left: an answer would take a message with it.
    """
    try:
        notifier.wait_until(key, ready, seconds, context)
    except CallerGoneError:
        context.abort(grpc.StatusCode.CANCELLED, "The caller has left.")
