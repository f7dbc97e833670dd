"""The Grid that every ServerApp gets: it knows the fleet's size, the run's members and the deadlines."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from logging import INFO, WARNING
from typing import Any

from flwr.app import Message, Metadata
from flwr.common.logger import log

from bouquet.contract.fleet_size import read_size
from bouquet.contract.partitions import SIZE, read_partition_ids, remove_num_partitions, write_num_partitions
from bouquet.errors import FleetError
from bouquet.flower.members import Members
from bouquet.flower.messages import error_from_node
from bouquet.flower.waiting_grid import WaitingGrid
from bouquet.polling import poll_until
from bouquet.settings.run_settings import RunSettings

POLL_SECONDS = 0.25
"""Time between two looks at the SuperNodes that are online, while a run waits for some."""
NOT_GIVEN: Any = object()
"""The timeout of an app that gives none."""
NODE_LEFT = "the node has left: the SuperLink rejected the message"
TOO_LARGE = "the messages are too large to be sent in one call (2 GiB)"


@dataclass(frozen=True)
class Exchange:
    """One call of `send_and_receive`: messages, replies and failures.

    Attributes:
        messages: The metadata of each message, in the order in which the app gave them.
        replies: The replies, error replies too, in the order of partitions.
        failures: The reason for each node that replied with an error, did not reply in time, or had left before its
            message was sent; by node id. Each reason names the partition.
        partition_ids: The partition-id of each node that has reported it, by node id.
        seconds: Time from sending the messages to the last reply, in seconds.
    """

    messages: list[Metadata]
    replies: list[Message]
    failures: dict[int, str]
    partition_ids: dict[int, int]
    seconds: float


class RunGrid(WaitingGrid):
    """A Grid on which apps need not care about a fleet that starts late, changes or fails in part.

    - Before the run's first message, and before the app first sees the nodes, it waits for the whole fleet.
    - The app sees the run's members that are online (`Members`).
    - `send_and_receive` has a deadline, returns replies in the order of partitions, and names each failure's node and
      partition. It waits for no node that has left.

    Args:
        settings: The deadlines and the files of the run.
        arguments: Those of `WaitingGrid`.

    Attributes:
        settings: The deadlines and the files of the run.
        members: The SuperNodes that take part in the run.
        on_exchange: Called at the end of each `send_and_receive`. None: not called.
        logs_error_replies: Whether to log error replies, as Flower's strategies do themselves.
    """

    def __init__(self, *arguments: Any, settings: RunSettings, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.settings = settings
        self.members = Members(partial(read_partition_ids, settings.run_dir))
        self.on_exchange: Callable[[Exchange], None] | None = None
        self.logs_error_replies = True
        self._start_lock = threading.Lock()
        self._recipients: dict[str, int] = {}  # of the messages without a reply, by message id

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the run's members that are online; waits for the fleet, and later for one member.

        Raises:
            FleetError: The fleet was not complete, or no member was online, for FLEET_DEADLINE seconds.
        """
        self._start()
        seconds = self.settings.fleet_deadline
        online = poll_until(lambda: self.members.update(super(RunGrid, self).get_node_ids()), seconds, POLL_SECONDS)
        if not online:
            raise FleetError(
                f"FLEET_DEADLINE={seconds:g}: none of the run's SuperNodes was online for that many seconds",
                "read their logs (make logs) and start them (make up)",
            )
        return online

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages and return their ids; an empty one for a message to a node that is not online.

        Raises:
            FleetError: The fleet was not complete for FLEET_DEADLINE seconds.
        """
        self._start()
        messages = list(messages)
        message_ids = list(super().push_messages(messages))
        for message, message_id in zip(messages, message_ids, strict=False):  # none for messages that are too large
            if message_id:
                self._recipients[message_id] = message.metadata.dst_node_id
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are here; an error comes from the node that failed, and names its partition."""
        return [self._named(reply) for reply in super().pull_messages(message_ids)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = NOT_GIVEN) -> Iterable[Message]:
        """Push messages, wait for their replies, and return them in the order of partitions.

        Args:
            messages: The messages.
            timeout: Seconds to wait at most; None: until all replies are here. By default ROUND_DEADLINE.

        Raises:
            FleetError: The fleet was not complete for FLEET_DEADLINE seconds.
        """
        self._start()
        messages = list(messages)
        started = time.monotonic()
        message_ids = list(self.push_messages(messages))
        sent = [message.metadata for message in messages]
        del messages
        accepted = {message_id: metadata for message_id, metadata in zip_longest(message_ids, sent) if message_id}
        is_default = timeout is NOT_GIVEN
        seconds = self.settings.round_deadline if is_default else timeout
        replies = self.wait_for_replies(accepted, seconds)
        order = {metadata.message_id: number for number, metadata in enumerate(sent)}
        replies.sort(key=lambda reply: (self._partition_order(reply), order[reply.metadata.reply_to_message_id]))

        failures: dict[int, str] = {}
        for reply in replies:
            if reply.has_error():
                reason = reply.error.reason or ""
                self._fail(failures, reply.metadata.src_node_id, reason, logs=self.logs_error_replies)
        answered = {reply.metadata.reply_to_message_id for reply in replies}
        limit = f"{'ROUND_DEADLINE' if is_default else 'timeout'}={seconds or 0:g}"
        rejected = NODE_LEFT if message_ids else TOO_LARGE
        for metadata in sent:
            if metadata.message_id not in accepted:
                self._fail(failures, metadata.dst_node_id, rejected)
            elif metadata.message_id not in answered:
                self._recipients.pop(metadata.message_id, None)
                self._fail(failures, metadata.dst_node_id, f"no reply within {limit} s")
        if self.on_exchange is not None:
            partition_ids = dict(self.members.partition_ids)
            self.on_exchange(Exchange(sent, replies, failures, partition_ids, time.monotonic() - started))
        return replies

    def close(self) -> None:
        """Close the connection at the end of the run."""
        super().close()
        if self._run is not None:
            remove_num_partitions(self.settings.run_dir, self._run.run_id)

    def _start(self) -> None:
        """Wait for the whole fleet, once, and fix the run's members."""
        with self._start_lock:
            if self.members.has_started:
                return
            online, size = self._await_fleet()
            self.members.start(online, size)
            if self.members.num_partitions is not None:
                write_num_partitions(self.settings.run_dir, self.run.run_id, self.members.num_partitions)

    def _await_fleet(self) -> tuple[list[int], int | None]:
        """Return the ids of all SuperNodes that are online, once the fleet is complete, and its configured size.

        Without this wait, round 1 would sample from the first nodes to connect: one of two instead of five of ten.
        """
        online: list[int] = []
        size: int | None = None
        logged = -1

        def is_complete() -> bool:
            nonlocal online, size, logged
            size = read_size(self.settings.run_dir / SIZE)
            online = list(super(RunGrid, self).get_node_ids())
            missing = len(online) < (size or 1)
            if missing and len(online) != logged:
                logged = len(online)
                log(INFO, "Waiting for the fleet: %d of %d SuperNodes are online", logged, size or 1)
            return not missing

        seconds = self.settings.fleet_deadline
        if not poll_until(is_complete, seconds, POLL_SECONDS):
            raise FleetError(
                f"FLEET_DEADLINE={seconds:g}: only {len(online)} of {size or 1} SuperNodes joined within that many "
                f"seconds{self._missing_partitions(online, size)}",
                f"read the logs of the missing SuperNodes (make logs), wait longer with FLEET_DEADLINE={2 * seconds:g} "
                f"make up, or make the fleet smaller with SUPERNODES={max(len(online), 1)} make up",
            )
        return online, size

    def _missing_partitions(self, online: list[int], size: int | None) -> str:
        """Return the partitions that no SuperNode holds, for an error message; empty if they are not known."""
        partition_ids = read_partition_ids(self.settings.run_dir)
        held = {partition_ids.get(node_id) for node_id in online}
        missing = [str(partition_id) for partition_id in range(size or 0) if partition_id not in held]
        return "" if None in held or not missing else f" (missing: partition-id {', '.join(missing)})"

    def _named(self, reply: Message) -> Message:
        """Return a reply; an error as one from the node that failed, with its partition in the reason."""
        node_id = self._recipients.pop(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)
        if not reply.has_error():
            return reply
        reason = reply.error.reason or f"error {reply.error.code}"
        return error_from_node(reply, node_id, self.members.with_partition(node_id, reason))

    def _partition_order(self, reply: Message) -> tuple[float, int]:
        node_id = reply.metadata.src_node_id
        return self.members.partition_ids.get(node_id, float("inf")), node_id

    def _fail(self, failures: dict[int, str], node_id: int, reason: str, *, logs: bool = True) -> None:
        """Add a node's failure, and log it."""
        failures[node_id] = self.members.with_partition(node_id, reason)
        if logs:
            log(WARNING, "\t> Node %d: %s", node_id, failures[node_id])
