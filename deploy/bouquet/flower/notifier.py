"""Waiting for events inside one process. It does not import gRPC: `Caller` is a party that waits for an answer."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any, Protocol


class CallerGoneError(Exception):
    """The caller has left, so it must not get an answer: a message in the answer would be lost."""


class Caller(Protocol):
    """A party that waits for an answer, such as a `grpc.ServicerContext`."""

    def is_active(self) -> bool:
        """Return whether the caller is still there."""

    def add_callback(self, callback: Callable[[], None]) -> Any:
        """Call `callback` once the caller has left."""


class KeyedNotifier:
    """Wakes the threads that wait for a key.

    Each key counts its notifications. A thread reads the count, looks at the state that it waits for, and waits for a
    higher count: it misses no notification between the look and the wait.
    """

    def __init__(self) -> None:
        # Reentrant, because a signal handler may call `close` in a thread that is about to wait.
        self._lock = threading.RLock()
        self._counts: defaultdict[Hashable, int] = defaultdict(int)
        self._waiting: dict[Hashable, threading.Condition] = {}
        self._closed = False

    def notify(self, key: Hashable) -> None:
        """Wake every thread that waits for `key`."""
        with self._lock:
            self._counts[key] += 1
            self._wake(key)

    def count(self, key: Hashable) -> int:
        """Return how often `key` was notified: what to pass to `wait` as `since`."""
        with self._lock:
            return self._counts[key]

    def wait(self, key: Hashable, since: int, seconds: float, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Wait until `key` was notified more than `since` times.

        Args:
            key: What to wait for.
            since: An earlier result of `count`.
            seconds: How long to wait at most.
            wanted: Whether to keep waiting.

        Returns:
            Whether the key was notified. False after `seconds`, when the notifier is closed, or when the wait is no
            longer wanted.
        """
        deadline = time.monotonic() + seconds
        with self._lock:
            while self._counts[key] == since and not self._closed:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not wanted():
                    return False
                self._waiting.setdefault(key, threading.Condition(self._lock)).wait(remaining)
            return not self._closed

    def wait_until(self, key: Hashable, ready: Callable[[], bool], seconds: float, caller: Caller) -> None:
        """Wait on behalf of a caller until `ready()`, which is called again at each notification of `key`.

        Args:
            key: What to wait for.
            ready: Whether there is an answer.
            seconds: How long to wait at most.
            caller: Who waits.

        Raises:
            CallerGoneError: The caller has left.
        """
        deadline = time.monotonic() + seconds
        watched = False
        while True:
            since = self.count(key)
            if not caller.is_active():
                raise CallerGoneError
            if ready() or time.monotonic() >= deadline or self._closed:
                return
            if not watched:
                watched = True
                caller.add_callback(lambda: self._wake_waiting(key))
            self.wait(key, since, deadline - time.monotonic(), wanted=caller.is_active)

    def close(self) -> None:
        """End every wait, from now on at once."""
        with self._lock:
            self._closed = True
            for condition in self._waiting.values():
                condition.notify_all()
            self._waiting.clear()

    def _wake_waiting(self, key: Hashable) -> None:
        """Let the threads that wait for `key` check whether their wait is still wanted."""
        with self._lock:
            self._wake(key)

    def _wake(self, key: Hashable) -> None:
        if condition := self._waiting.pop(key, None):
            condition.notify_all()


class KeyedListener:
    """One thread that waits for one key again and again, and misses no notification in between."""

    def __init__(self, notifier: KeyedNotifier, key: Hashable) -> None:
        self._notifier = notifier
        self._key = key
        self._seen = -1

    def wait(self, seconds: float) -> None:
        """Wait for a notification since the previous wait ended; the first wait ends at once."""
        self._notifier.wait(self._key, self._seen, seconds)
        self._seen = self._notifier.count(self._key)
