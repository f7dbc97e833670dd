"""The state machine of one worker process, and the deadlines of each state. It touches no process and no clock.

                     done(usable)
              +----------------------+
              v                      |
    (fork) IDLE --- assign ---> WORKING --- done(not usable) ---> RETIRED
              |                      |                               |
              | end                  | end, time_out                 | end, killed
              | channel_closed       | channel_closed                | channel_closed
              +----------------------+---------------+---------------+
                                                     v
                             (channel_closed) +-> ENDING <-+ (killed)
                                              +------+-----+

    exited() leads from every phase to EXITED, once.

A worker has a task from `assign` to `done`: while it is WORKING, and perhaps still in ENDING and EXITED. `pulled` and
`replied` note how far the task is. A transition from any other phase raises `ForbiddenTransitionError`.
"""

from dataclasses import dataclass, replace
from enum import Enum

HEARTBEAT_SECONDS = 5.0
"""Interval between two heartbeats of a task. Flower gives a task up after 60 s without any."""

EXIT_SECONDS = 5.0
"""Time for the exit handlers and threads of a worker. Flower gives those of a stock process the same time."""

KILL_GRACE_SECONDS = EXIT_SECONDS + 0.5
"""Time for a worker to end by itself: between SIGTERM, the end of its channel, or its last task, and SIGKILL."""


class Phase(Enum):
    """What a worker is doing."""

    IDLE = "idle"
    """It waits for a task."""
    WORKING = "working"
    """It has a task."""
    RETIRED = "retired"
    """It has finished its last task, and exits by itself."""
    ENDING = "ending"
    """It was told to end or was killed, or has closed its channel. It is killed (again) after the grace time."""
    EXITED = "exited"
    """Its process has ended. If it still has a task, the executor answers for it."""


class Deadline(Enum):
    """What is due for a worker at a certain time."""

    TASK_LIMIT = "task limit"
    """Its task takes too long: kill it."""
    HEARTBEAT = "heartbeat"
    """The server must be told that its task is being worked on."""
    IDLE_LIMIT = "idle limit"
    """It has waited long enough for a task: end it."""
    KILL = "kill"
    """The grace time is over: kill it."""


class ForbiddenTransitionError(Exception):
    """A transition was asked for that the worker's phase does not allow."""


@dataclass(frozen=True)
class Limits:
    """How long a worker may take.

    Attributes:
        idle_seconds: For the next task of its run to arrive.
        task_seconds: For one task; None for no limit.
        heartbeat_seconds: Between two heartbeats of its task.
        kill_grace_seconds: For ending by itself.
    """

    idle_seconds: float
    task_seconds: float | None = None
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    kill_grace_seconds: float = KILL_GRACE_SECONDS


@dataclass(frozen=True)
class TaskInHand:
    """A task that a worker has.

    Attributes:
        token: Flower's token to act for the task.
        message: The message that the worker has pulled for it, serialized and without content.
        replied: Whether the reply to that message has been sent.
    """

    token: str
    message: bytes | None = None
    replied: bool = False


class WorkerState:
    """The state of one worker. The caller passes the time, in seconds of a monotonic clock.

    Attributes:
        phase: What the worker is doing.
        since: When that phase began.
        task: The task that it has, if any.
        channel_open: Whether it can still send messages.
        end_reason: Why the executor has ended or killed it, if it has. The text follows the worker's name: "took longer
            than 6 s and was killed".
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self.phase = Phase.IDLE
        self.task: TaskInHand | None = None
        self.channel_open = True
        self.end_reason: str | None = None
        self.since = now
        self._last_heartbeat = now
        self._kill_at = now  # of ENDING only

    @property
    def can_end(self) -> bool:
        """Whether `end` is allowed: false if it is ending already, or has exited."""
        return self.phase in (Phase.IDLE, Phase.WORKING, Phase.RETIRED)

    # Transitions

    def assign(self, token: str, now: float) -> None:
        """It gets a task."""
        self._require("assign", Phase.IDLE)
        self.task = TaskInHand(token)
        self._last_heartbeat = now
        self._enter(Phase.WORKING, now)

    def pulled(self, message: bytes) -> None:
        """It has pulled the message of its task."""
        self.task = replace(self._task("pulled"), message=message)

    def replied(self) -> None:
        """It has sent the reply of its task."""
        self.task = replace(self._task("replied"), replied=True)

    def done(self, usable: bool, now: float) -> None:
        """It has finished its task.

        Args:
            usable: Whether it waits for another task. It exits by itself otherwise.
            now: The time.
        """
        self._task("done")
        self.task = None
        if self.phase is Phase.WORKING:
            self._enter(Phase.IDLE if usable else Phase.RETIRED, now)

    def heartbeat(self, now: float) -> None:
        """The server is told that its task is being worked on."""
        self._require("heartbeat", Phase.WORKING)
        self._last_heartbeat = now

    def end(self, reason: str, now: float) -> None:
        """It is told to end: by SIGTERM while it has a task, otherwise by the end of its channel."""
        self._require("end", Phase.IDLE, Phase.WORKING, Phase.RETIRED)
        self._start_ending(reason, now)

    def time_out(self, now: float) -> None:
        """Its task has reached the limit; it is killed."""
        self._require("time_out", Phase.WORKING)
        self._start_ending(f"took longer than {self._limits.task_seconds:g} s and was killed", now)

    def channel_closed(self, now: float) -> None:
        """Its channel is closed: it is about to exit, unless its app closed a file descriptor of others."""
        if not self.channel_open:
            raise ForbiddenTransitionError("channel_closed: its channel is closed already")
        self._require("channel_closed", Phase.IDLE, Phase.WORKING, Phase.RETIRED, Phase.ENDING)
        self.channel_open = False
        if self.phase is not Phase.ENDING:
            self._start_ending(None, now)

    def killed(self, now: float) -> None:
        """The grace time is over; it is killed, and once more after another grace time."""
        self._require("killed", Phase.RETIRED, Phase.ENDING)
        self._start_ending(self.end_reason or "did not end after its channel was closed", now)

    def exited(self, now: float) -> None:
        """Its process has ended. Its last messages may still arrive."""
        self._require("exited", Phase.IDLE, Phase.WORKING, Phase.RETIRED, Phase.ENDING)
        self._enter(Phase.EXITED, now)

    # Deadlines

    def deadlines(self) -> dict[Deadline, float]:
        """Return what is due, and when: the most urgent first."""
        limits = self._limits
        match self.phase:
            case Phase.IDLE:
                return {Deadline.IDLE_LIMIT: self.since + limits.idle_seconds}
            case Phase.WORKING:
                heartbeat = {Deadline.HEARTBEAT: self._last_heartbeat + limits.heartbeat_seconds}
                if limits.task_seconds is None:
                    return heartbeat
                return {Deadline.TASK_LIMIT: self.since + limits.task_seconds, **heartbeat}
            case Phase.RETIRED:
                return {Deadline.KILL: self.since + limits.kill_grace_seconds}
            case Phase.ENDING:
                return {Deadline.KILL: self._kill_at}
            case Phase.EXITED:
                return {}

    def due(self, now: float) -> Deadline | None:
        """Return the most urgent deadline that has passed, if any."""
        return next((deadline for deadline, at in self.deadlines().items() if now >= at), None)

    # Details

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase = phase
        self.since = now

    def _start_ending(self, reason: str | None, now: float) -> None:
        self.end_reason = reason
        self._kill_at = now + self._limits.kill_grace_seconds
        self._enter(Phase.ENDING, now)

    def _require(self, transition: str, *phases: Phase) -> None:
        if self.phase not in phases:
            raise ForbiddenTransitionError(f"{transition}: the worker is {self.phase.value}")

    def _task(self, transition: str) -> TaskInHand:
        if self.task is None:
            raise ForbiddenTransitionError(f"{transition}: the worker is {self.phase.value} and has no task")
        return self.task
