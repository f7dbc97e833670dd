"""A SuperNode's heartbeats, which show whether the SuperLink counts the node as online."""

from collections.abc import Callable

import grpc
from flwr.supercore.heartbeat import HeartbeatSender

from bouquet.flower.channels import with_quick_retries
from bouquet.runtime.steady_clock import SteadyClock, process_clock

UNANSWERED_SECONDS = 45.0
"""Time without an answered heartbeat after which the node counts itself as offline: two heartbeats, and 15 s before the
SuperLink gives the node up."""

_UNANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Heartbeat(HeartbeatSender):
    """Sends heartbeats in a thread, and outlives an error of the SuperLink.

    Flower's own sender ends for good at the first answer that is neither success nor 'unavailable', such as INTERNAL
    because of a full disk: the node would look healthy and be offline until restarted. It also says nothing while it
    repeats a heartbeat that is not answered, up to 20 s apart.
    """

    def __init__(
        self,
        send: Callable[[], bool],
        on_online: Callable[[], None],
        on_offline: Callable[[str], None],
        clock: SteadyClock | None = None,
    ) -> None:
        """Prepare the thread; `start` starts it.

        Args:
            send: Sends one heartbeat and returns whether the SuperLink knows the node; raises `grpc.RpcError` if the
                call fails.
            on_online: Called after each heartbeat that the SuperLink has acknowledged.
            on_offline: Called with the reason after a heartbeat that shows that the node is offline.
            clock: Does not count the time in which this process was frozen. By default the process's.
        """
        super().__init__(self._attempt)
        with_quick_retries(self._retry_invoker)
        self._send = send
        self._on_online = on_online
        self._on_offline = on_offline
        self._clock = clock or process_clock()
        self._answered = self._clock.time()

    def start(self) -> None:
        """Start the thread."""
        self._answered = self._clock.time()
        super().start()

    def _attempt(self) -> bool:
        """Send one heartbeat; False: send the next one soon."""
        try:
            is_known = self._send()
        except grpc.RpcError as error:
            if error.code() not in _UNANSWERED:
                self._on_offline(f"heartbeat failed: {error.code().name}: {error.details()}")
            elif self._clock.time() - self._answered > UNANSWERED_SECONDS:
                self._on_offline("the SuperLink does not answer heartbeats")
            return False
        if not is_known:
            reason = "Heartbeat failed unexpectedly. The SuperLink does not recognize this SuperNode."
            self._on_offline(reason)
            raise RuntimeError(reason)  # ends this thread: to repeat the heartbeat would not help
        self._answered = self._clock.time()
        self._on_online()
        return True
