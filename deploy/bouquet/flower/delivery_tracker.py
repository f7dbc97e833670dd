"""Which messages are complete, and so may be delivered.

Flower stores a message before its content, which follows object by object. A message that is delivered in between makes
its receiver look for missing objects, and back off for a whole second.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager

from bouquet.flower.notifier import KeyedNotifier

_BEING_STORED = ""
"""Stands for the objects of a message that is not announced yet."""


class DeliveryTracker:
    """Announced messages by recipient, and the objects of each that are still missing.

    A key stands for a recipient: a node, or the ServerApp of a run. The tracker notifies it of each message that has
    become complete.
    """

    def __init__(self, notifier: KeyedNotifier, expiry_seconds: float) -> None:
        """Start with no messages.

        Args:
            notifier: Notifies recipients.
            expiry_seconds: After this time a message with missing objects is no longer counted as incomplete.
        """
        self._notifier = notifier
        self._expiry_seconds = expiry_seconds
        self._lock = threading.Lock()
        self._announced: dict[tuple[Hashable, str], float] = {}
        self._missing: defaultdict[Hashable, dict[str, set[str]]] = defaultdict(dict)
        self._awaited: defaultdict[str, list[tuple[Hashable, str]]] = defaultdict(list)

    @contextmanager
    def expecting(self, messages: Iterable[tuple[Hashable, str]]) -> Iterator[None]:
        """Count messages, by key and id, as incomplete while they are being stored; forget those not announced by then.

        Otherwise a message could be delivered without its objects, after it was stored and before it is announced.
        """
        expected = set(messages)
        with self._lock:
            for key, message_id in expected:
                self._missing[key][message_id] = {_BEING_STORED}
                self._announced[key, message_id] = time.monotonic()
        try:
            yield
        finally:
            for key, message_id in expected:
                if _BEING_STORED in self._missing.get(key, {}).get(message_id, ()):
                    self.forget(key, {message_id})
                    self._notifier.notify(key)

    def announce(self, key: Hashable, message_id: str, missing: Iterable[str]) -> None:
        """Note a message for `key`, which is complete once all `missing` objects have arrived."""
        with self._lock:
            self._missing[key][message_id] = pending = set(missing)
            self._announced[key, message_id] = time.monotonic()
            for object_id in pending:
                self._awaited[object_id].append((key, message_id))
        if not pending:
            self._notifier.notify(key)

    def object_arrived(self, object_id: str) -> None:
        """Note that an object was stored."""
        completed = []
        with self._lock:
            for key, message_id in self._awaited.pop(object_id, ()):
                pending = self._missing.get(key, {}).get(message_id)
                if pending is not None:
                    pending.discard(object_id)
                    if not pending:
                        completed.append(key)
        for key in completed:
            self._notifier.notify(key)

    def complete(self, key: Hashable) -> set[str]:
        """Return the ids of the messages for `key` whose objects have all arrived."""
        with self._lock:
            return {message_id for message_id, missing in self._missing.get(key, {}).items() if not missing}

    def incomplete(self, key: Hashable) -> set[str]:
        """Return the ids of the messages for `key` whose missing objects are still expected."""
        oldest = time.monotonic() - self._expiry_seconds
        with self._lock:
            return {
                message_id
                for message_id, missing in self._missing.get(key, {}).items()
                if missing and self._announced[key, message_id] > oldest
            }

    def forget(self, key: Hashable, message_ids: Iterable[str] | None = None) -> None:
        """Drop messages that were delivered, or all messages for `key`."""
        with self._lock:
            messages = self._missing.get(key, {})
            for message_id in list(messages) if message_ids is None else message_ids:
                self._announced.pop((key, message_id), None)
                for object_id in messages.pop(message_id, set()) - {_BEING_STORED}:
                    self._awaited.get(object_id, []).remove((key, message_id))
                    if not self._awaited[object_id]:
                        del self._awaited[object_id]
            if not messages:
                self._missing.pop(key, None)
