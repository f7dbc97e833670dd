"""The SuperNode's state, whose tasks live on when the clock jumps."""

from datetime import timedelta
from logging import WARNING

from flwr.common.logger import log
from flwr.supercore.object_store import ObjectStore
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from bouquet.runtime.steady_clock import Deadlines, SteadyClock, process_clock


class SteadyNodeState(InMemoryNodeState):
    """Flower's state, which moves the deadlines of tasks when the wall clock jumps; see `steady_clock`."""

    def __init__(self, object_store: ObjectStore, clock: SteadyClock | None = None) -> None:
        super().__init__(object_store)
        self._deadlines = Deadlines(clock or process_clock())

    def claim_task(self, task_id: int) -> str | None:
        """Give a pending task to an executor, and return the token for it; None if it is not pending."""
        with self.lock_task_store:
            self._deadlines.shift(self._move_deadlines)
        return super().claim_task(task_id)

    def _cleanup_expired_task_tokens_locked(self) -> None:
        """Fail the tasks without heartbeats. Flower calls it before it reads or renews a deadline."""
        self._deadlines.shift(self._move_deadlines)
        super()._cleanup_expired_task_tokens_locked()

    def _move_deadlines(self, seconds: float) -> None:
        log(WARNING, "The clock jumped by %.0f s: deadlines of tasks move along", seconds)
        for record in self.task_token_store.values():
            record.active_until += timedelta(seconds=seconds)


class SteadyNodeStateFactory(NodeStateFactory):
    """Creates the SuperNode's one state on first use. Flower's servicers ask a factory for the state."""

    def state(self) -> SteadyNodeState:
        """Return the state, and create it if necessary."""
        with self.lock:
            if not isinstance(self.state_instance, SteadyNodeState):
                self.state_instance = SteadyNodeState(self.objectstore_factory.store())
            return self.state_instance
