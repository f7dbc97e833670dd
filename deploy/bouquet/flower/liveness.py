"""Which SuperNodes have gone, known sooner than by a minute without heartbeats.

A SuperNode of ours always has a call at the SuperLink that is held: for a message, or for the end of the run that it
works for. When its process ends, the kernel closes its connection, and gRPC says that the call's caller has left.
A node that merely lost its connection notices with its next heartbeat, and calls again; one that has not within
`GRACE` has gone.

A process that was cut off from the network leaves its calls behind as if it were there. So when another one shows the
same key, the calls are answered, and whoever is alive calls again.
"""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import grpc

from bouquet.flower.notifier import KeyedNotifier

GRACE = 30.0  # seconds from a lost connection to the verdict: 22 to the next heartbeat, 6 for TCP to give up
CHALLENGE = 4.0  # seconds in which who is alive calls again; the longest pause between two pulls is 3


class Liveness:
    """Calls of SuperNodes, as signs of life."""

    def __init__(self, bell: KeyedNotifier, on_gone: Callable[[int], None] = lambda node_id: None) -> None:
        """`on_gone` is called with the id of a node that has lost its connection and not come back."""
        self.on_gone = on_gone
        self._bell = bell
        self._changed = threading.Condition()
        self._calls: Counter[int] = Counter()  # of a node, so far
        self._held: dict[int, list[Hashable]] = {}  # what its calls are held for
        self._lost: set[int] = set()
        self._challenged: set[int] = set()

    def seen(self, node_id: int) -> None:
        """Note a call of a node."""
        with self._changed:
            self._calls[node_id] += 1
            self._lost.discard(node_id)
            self._changed.notify_all()

    @contextmanager
    def held(self, node_id: int, key: Hashable, context: grpc.ServicerContext) -> Iterator[Callable[[], bool]]:
        """Around a call that is held for `key`: yields what tells whether to answer it now, to see who is there."""
        self.seen(node_id)
        with self._changed:
            self._held.setdefault(node_id, []).append(key)
        left = False
        try:
            yield lambda: node_id in self._challenged
            left = not context.is_active()
        except BaseException:
            left = not context.is_active()
            raise
        finally:
            with self._changed:
                self._held[node_id].remove(key)
                if not self._held[node_id]:
                    del self._held[node_id]
                    if left:
                        self._lose(node_id)

    def answers(self, node_id: int) -> bool:
        """Whether the process that is known as this node still calls; waits for it to, a few seconds at most."""
        with self._changed:
            if node_id in self._lost:
                return False
            calls = self._calls[node_id]
            self._challenged.add(node_id)
            keys = list(self._held.get(node_id, ()))
        try:
            for key in keys:
                self._bell.notify(key)
            with self._changed:
                return self._changed.wait_for(lambda: self._calls[node_id] != calls, CHALLENGE)
        finally:
            with self._changed:
                self._challenged.discard(node_id)

    def _lose(self, node_id: int) -> None:
        self._lost.add(node_id)
        timer = threading.Timer(GRACE, self._judge, (node_id, self._calls[node_id]))
        timer.daemon = True
        timer.start()

    def _judge(self, node_id: int, calls: int) -> None:
        with self._changed:
            if node_id not in self._lost or self._calls[node_id] != calls:
                return
        self.on_gone(node_id)
