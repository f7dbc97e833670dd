"""Waiting for events inside one process, and calls that a server holds until there is something to answer.

A held call occupies one thread of the server and costs nothing else: no timer, no poll. Its limit keeps it well
below what cuts idle connections (Flower's gRPC keepalive is 210 s), and makes whatever an event missed, such as a
message stored by another process, late by that limit at most.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

_STORING = ""  # stands for the objects of a message that is not announced yet

HOLD_HEADER = "bouquet-hold"  # the metadata by which our clients ask for a hold; stock servers ignore it


class Bell:
    """Wakes those who wait for a key. What rings between a look and the wait is not missed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rings: defaultdict[Hashable, int] = defaultdict(int)
        self._waiting: dict[Hashable, threading.Condition] = {}
        self._closed = False

    def ring(self, key: Hashable) -> None:
        """Wake everyone who waits for `key`."""
        with self._lock:
            self._rings[key] += 1
            self._wake(key)

    def _nudge(self, key: Hashable) -> None:
        """Have those who wait for `key` look whether they still want to."""
        with self._lock:
            self._wake(key)

    def _wake(self, key: Hashable) -> None:
        if condition := self._waiting.pop(key, None):
            condition.notify_all()

    def close(self) -> None:
        """End every wait, now and from now on."""
        with self._lock:
            self._closed = True
            for condition in self._waiting.values():
                condition.notify_all()
            self._waiting.clear()

    def heard(self, key: Hashable) -> int:
        """How often `key` has rung: what to pass to `wait` as `since`."""
        with self._lock:
            return self._rings[key]

    def wait(self, key: Hashable, since: int, seconds: float, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Wait until `key` has rung more than `since` times.

        False if `seconds` passed, the bell is closed, or the wait is no longer `wanted`.
        """
        deadline = time.monotonic() + seconds
        with self._lock:
            while self._rings[key] == since and not self._closed:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not wanted():
                    return False
                self._waiting.setdefault(key, threading.Condition(self._lock)).wait(remaining)
            return not self._closed

    def hold(self, key: Hashable, ready: Callable[[], bool], seconds: float, context: grpc.ServicerContext) -> None:
        """Hold a call until `ready()`, which is asked again at each ring of `key`, or for `seconds`.

        A caller that has gone away meanwhile is not answered: an answer would take a message with it.
        """
        deadline = time.monotonic() + seconds
        watched = False
        while True:
            since = self.heard(key)
            if not context.is_active():
                context.abort(grpc.StatusCode.CANCELLED, "The caller has gone away.")
            if ready() or time.monotonic() >= deadline or self._closed:
                return
            if not watched:
                watched = context.add_callback(lambda: self._nudge(key))
            self.wait(key, since, deadline - time.monotonic(), wanted=context.is_active)


class Listener:
    """One who waits for one key of a bell, again and again."""

    def __init__(self, bell: Bell, key: Hashable) -> None:
        self._bell = bell
        self._key = key
        self._heard = -1

    def wait(self, seconds: float) -> None:
        """Wait for a ring since the wait before ended; the first wait ends at once."""
        self._bell.wait(self._key, self._heard, seconds)
        self._heard = self._bell.heard(self._key)


class Mailboxes:
    """Knows which messages have been announced for a key, and of which all objects have arrived.

    Flower stores a message before its content, which follows object by object. Handed out in between, its
    receiver would find objects missing and back off for a whole second.
    """

    def __init__(self, bell: Bell, patience: float) -> None:
        """`patience`: seconds after which a message with objects missing no longer counts as on its way."""
        self._bell = bell
        self._patience = patience
        self._lock = threading.Lock()
        self._announced: dict[tuple[Hashable, str], float] = {}
        self._missing: defaultdict[Hashable, dict[str, set[str]]] = defaultdict(dict)
        self._awaited: defaultdict[str, list[tuple[Hashable, str]]] = defaultdict(list)

    @contextmanager
    def expecting(self, messages: Iterable[tuple[Hashable, str]]) -> Iterator[None]:
        """Count messages, by key and id, as incomplete while they are stored: what is not announced then is forgotten.

        Between being stored and being announced, a message would otherwise be handed out without its objects.
        """
        expected = set(messages)
        with self._lock:
            for key, message_id in expected:
                self._missing[key][message_id] = {_STORING}
                self._announced[key, message_id] = time.monotonic()
        try:
            yield
        finally:
            for key, message_id in expected:
                if _STORING in self._missing.get(key, {}).get(message_id, ()):
                    self.forget(key, {message_id})
                    self._bell.ring(key)

    def announce(self, key: Hashable, message_id: str, missing: Iterable[str]) -> None:
        """Note a message for `key` that is complete once all objects of `missing` have arrived."""
        with self._lock:
            self._missing[key][message_id] = pending = set(missing)
            self._announced[key, message_id] = time.monotonic()
            for object_id in pending:
                self._awaited[object_id].append((key, message_id))
        if not pending:
            self._bell.ring(key)

    def arrive(self, object_id: str) -> None:
        """Note that an object has been stored."""
        completed = []
        with self._lock:
            for key, message_id in self._awaited.pop(object_id, ()):
                pending = self._missing.get(key, {}).get(message_id)
                if pending is not None:
                    pending.discard(object_id)
                    if not pending:
                        completed.append(key)
        for key in completed:
            self._bell.ring(key)

    def complete(self, key: Hashable) -> set[str]:
        """Messages for `key` that are all there."""
        with self._lock:
            return {message_id for message_id, missing in self._missing.get(key, {}).items() if not missing}

    def incomplete(self, key: Hashable) -> set[str]:
        """Messages for `key` of which objects are missing, but expected."""
        given_up = time.monotonic() - self._patience
        with self._lock:
            return {
                message_id
                for message_id, missing in self._missing.get(key, {}).items()
                if missing and self._announced[key, message_id] > given_up
            }

    def forget(self, key: Hashable, message_ids: Iterable[str] | None = None) -> None:
        """Drop messages that have been handed out, or all of `key`."""
        with self._lock:
            box = self._missing.get(key, {})
            for message_id in list(box) if message_ids is None else message_ids:
                self._announced.pop((key, message_id), None)
                for object_id in box.pop(message_id, set()) - {_STORING}:
                    self._awaited.get(object_id, []).remove((key, message_id))
                    if not self._awaited[object_id]:
                        del self._awaited[object_id]
            if not box:
                self._missing.pop(key, None)


_asked = threading.local()


@contextmanager
def holding(seconds: float) -> Iterator[None]:
    """Ask the server to hold the calls that this thread makes within the block."""
    _asked.seconds = seconds
    try:
        yield
    finally:
        _asked.seconds = 0.0


def hold_asked(context: grpc.ServicerContext, limit: float, unless_asked: float = 0.0) -> float:
    """How long the caller wants this call to be held: seconds, 0 to `limit`."""
    metadata = dict(context.invocation_metadata() or ())
    try:
        return max(0.0, min(float(metadata.get(HOLD_HEADER, unless_asked)), limit))
    except ValueError:
        return 0.0


def without_watch(channel: grpc.Channel) -> grpc.Channel:
    """Keep Flower from watching a channel's state, which it does for a line in the debug log, five times a second."""
    channel.subscribe = lambda callback, try_to_connect=False: None
    return channel


class HoldClientInterceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc] # grpc has no types
    """Sends what `holding` asks for along with a call."""

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        """Add the hold to the metadata of one call."""
        if seconds := getattr(_asked, "seconds", 0.0):
            metadata = (*(client_call_details.metadata or ()), (HOLD_HEADER, str(seconds)))
            client_call_details = client_call_details._replace(metadata=metadata)
        return continuation(client_call_details, request)
