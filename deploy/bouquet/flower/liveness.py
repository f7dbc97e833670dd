"""Which SuperNodes are gone, known sooner than after a minute without heartbeats.

A SuperNode of Bouquet always has a held call at the SuperLink: for a message, or for the end of the run that it works
for. When its process ends, the kernel closes its connection, and the call's caller has left. A node that only lost its
connection notices with its next heartbeat and calls again. A node that has not called again within `GRACE_SECONDS` is
gone.

A process that was cut off from the network leaves its calls behind as if it were still there. So when another process
shows the same key, the held calls are answered, and a process that is alive calls again: it was challenged.
"""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from bouquet.flower.notifier import Caller, KeyedNotifier
from bouquet.runtime.steady_clock import SteadyClock, process_clock

GRACE_SECONDS = 30.0  # from a lost connection to the verdict: 22 s to the next heartbeat, 6 s until TCP gives up
SLACK_SECONDS = 1.0  # a timer and the clock do not agree exactly
CHALLENGE_SECONDS = 4.0  # in which a process that is alive calls again; the longest pause between two pulls is 3 s


class Liveness:
    """Which nodes still call.

    Attributes:
        on_gone: Called with the id of a node that has lost its connection and not called again.
    """

    def __init__(
        self,
        notifier: KeyedNotifier,
        on_gone: Callable[[int], None] = lambda node_id: None,
        clock: SteadyClock | None = None,
    ) -> None:
        self.on_gone = on_gone
        self._clock = clock or process_clock()
        self._notifier = notifier
        self._changed = threading.Condition()
        self._calls: Counter[int] = Counter()  # by node
        self._held: dict[int, list[Hashable]] = {}  # the keys that the held calls of a node wait for
        self._lost: set[int] = set()
        self._challenged: set[int] = set()

    def seen(self, node_id: int) -> None:
        """Note a call of a node."""
        with self._changed:
            self._calls[node_id] += 1
            self._lost.discard(node_id)
            self._changed.notify_all()

    @contextmanager
    def held(self, node_id: int, key: Hashable, caller: Caller) -> Iterator[Callable[[], bool]]:
        """Watch a call of a node while it is held.

        Args:
            node_id: The node.
            key: What the call waits for.
            caller: Tells whether the node is still connected.

        Yields:
            A function that returns whether to answer the call now, because the node is challenged.
        """
        self.seen(node_id)
        with self._changed:
            self._held.setdefault(node_id, []).append(key)
        left = False
        try:
            yield lambda: node_id in self._challenged
            left = not caller.is_active()
        except BaseException:
            left = not caller.is_active()
            raise
        finally:
            with self._changed:
                self._held[node_id].remove(key)
                if not self._held[node_id]:
                    del self._held[node_id]
                    if left:
                        self._lose(node_id)

    def answers(self, node_id: int) -> bool:
        """Return whether the process that is known as this node still calls; waits at most `CHALLENGE_SECONDS`."""
        with self._changed:
            if node_id in self._lost:
                return False
            calls = self._calls[node_id]
            self._challenged.add(node_id)
            keys = list(self._held.get(node_id, ()))
        try:
            for key in keys:
                self._notifier.notify(key)
            with self._changed:
                return self._changed.wait_for(lambda: self._calls[node_id] != calls, CHALLENGE_SECONDS)
        finally:
            with self._changed:
                self._challenged.discard(node_id)

    def _lose(self, node_id: int) -> None:
        self._lost.add(node_id)
        self._decide_later(node_id, self._calls[node_id], GRACE_SECONDS)

    def _decide_later(self, node_id: int, calls: int, seconds: float) -> None:
        timer = threading.Timer(seconds, self._decide, (node_id, calls, self._clock.time() + seconds))
        timer.daemon = True
        timer.start()

    def _decide(self, node_id: int, calls: int, deadline: float) -> None:
        """Report a node as gone, unless it has called since it lost its connection."""
        with self._changed:
            if node_id not in self._lost or self._calls[node_id] != calls:
                return
        left = deadline - self._clock.time()
        if left > SLACK_SECONDS:  # this process was frozen, and perhaps the node too
            self._decide_later(node_id, calls, left)
            return
        self.on_gone(node_id)
