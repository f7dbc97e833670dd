"""What the parts of one SuperNode share: its main loop, its Runtime API, its executor and its place in the fleet."""

import os
import signal
import threading
import time
from collections.abc import Callable
from logging import INFO

from flwr.app.user_config import UserConfig
from flwr.common.logger import log
from flwr.supercore.run import Run, RunNotRunningException

from bouquet.flower.fleet_client import SuperLinkUnreachableError
from bouquet.flower.holding import holding
from bouquet.flower.notifier import KeyedListener, KeyedNotifier
from bouquet.flower.partition_interceptor import Partition

TASKS, REPLIES = "tasks", "replies"
"""Keys of the notifier: a task may be started; a reply, or a part of one, was handed over."""

RUN_HOLD_SECONDS = 20.0
"""How long our SuperLink may hold the question whether a run has ended."""
RUN_POLL_SECONDS = 5.0
"""Time between two such questions to a stock SuperLink, which does not hold them."""
HELD_SECONDS = 1.0
"""An empty answer that took longer was held."""


class NodeSession:
    """The shared state of one SuperNode.

    Attributes:
        notifier: Wakes the threads that wait for `TASKS` or `REPLIES`.
        tasks: Waits for tasks, on behalf of the executor.
        is_receiving: Whether a message is here whose objects are still coming: nobody may start its task.
        on_online: Called with the node id at each heartbeat that the SuperLink has acknowledged, and first right after
            the SuperLink has accepted the node.
        on_offline: Called with the reason when the SuperLink no longer counts the node as online.
        on_run_ended: Called with the id of a run that has ended, for whatever reason.
        partition: The partition that the node holds.
    """

    def __init__(
        self,
        on_online: Callable[[int], None] = lambda node_id: None,
        on_offline: Callable[[str], None] = lambda reason: None,
        partition: Partition | None = None,
    ) -> None:
        self.partition = partition or Partition()
        self.notifier = KeyedNotifier()
        self.tasks = KeyedListener(self.notifier, TASKS)
        self.is_receiving = False
        self.on_online = on_online
        self.on_offline = on_offline
        self.on_run_ended: Callable[[int], None] = lambda run_id: None
        self._is_working = False  # from the arrival of a message until its reply is sent
        self._leave_reason = ""
        self._end_lock = threading.Lock()
        self._watched_runs: set[int] = set()

    # The node's place in the fleet, as a `bouquet.node.slot.FleetSizeListener`

    def resize(self, supernodes: int) -> None:
        """Have runs that begin from now on see `supernodes` partitions, unless the SuperLink gives their number."""
        self.partition.num_partitions = supernodes

    def leave(self, reason: str) -> None:
        """End as on SIGTERM, after the message that the node works on."""
        self._leave_reason = reason
        if not self._is_working:
            self._end()

    def node_config(self, configured: UserConfig) -> UserConfig:
        """Return the node config for a run that begins now: a copy, because Flower keeps it with the run."""
        partition = self.partition
        known = {"partition-id": partition.partition_id, "num-partitions": partition.num_partitions}
        return configured | {key: value for key, value in known.items() if value is not None}

    def _end(self) -> None:
        # Once: a second signal would kill the process before the first has ended it in order.
        if self._end_lock.acquire(blocking=False):
            log(INFO, "Starting over: %s", self._leave_reason)
            os.kill(os.getpid(), signal.SIGTERM)

    # The message that the node works on

    def message_arrived(self) -> None:
        """Note that the node works on a message whose objects are still to come."""
        self.is_receiving = self._is_working = True

    def message_received(self) -> None:
        """Let the executor start the task of the message, whose objects are all here."""
        self.is_receiving = False
        self.notifier.notify(TASKS)

    def message_answered(self) -> None:
        """Note that the node works on no message; end if it has to leave."""
        self.is_receiving = self._is_working = False
        if self._leave_reason:
            self._end()

    # Runs

    def watch_run(self, run_id: int, get_run: Callable[[int], Run]) -> None:
        """Call `on_run_ended` when a run has ended.

        Args:
            run_id: The run.
            get_run: Asks the SuperLink for a run; raises `RunNotRunningException` if it has ended.
        """
        if run_id not in self._watched_runs:
            self._watched_runs.add(run_id)
            threading.Thread(target=self._watch_run, args=(run_id, get_run), daemon=True).start()

    def is_watched(self, run_id: int) -> bool:
        """Return whether a run is watched, that is, whether it goes on as far as this node knows."""
        return run_id in self._watched_runs

    def _watch_run(self, run_id: int, get_run: Callable[[int], Run]) -> None:
        try:
            while True:
                start = time.monotonic()
                with holding(RUN_HOLD_SECONDS):
                    get_run(run_id)
                if time.monotonic() - start < HELD_SECONDS:
                    time.sleep(RUN_POLL_SECONDS)
        except (RunNotRunningException, SuperLinkUnreachableError):
            self.on_run_ended(run_id)
        finally:
            self._watched_runs.discard(run_id)
