"""The executor: claims Flower's pending tasks and has warm processes work on them.

It replaces Flower's SuperExec. It lives in two threads of the SuperNode's process, or of the process that keeps the
SuperLink running, so neither outlives the other. Apps run in processes of their own, the workers: forks of the zygote.

    dispatch thread    waits for a task and for room, claims the task, assigns it to a worker
    supervise thread   waits for messages of workers and zygote and for deadlines, answers for tasks whose worker died

The locking rule: all state of workers and zygote is read and changed only while holding `Executor._lock`. No callback,
no gRPC call and no other call that may block runs while holding it. Packets to workers and zygote are sent while
holding it, but with `wait=False`. So a worker's state changes together with the packet to it, and no thread
that needs the lock waits for a server.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

from bouquet.executor.app_folders import AppFolders
from bouquet.executor.channel import Channel
from bouquet.executor.frameworks import to_preload
from bouquet.executor.linux import LACKS_AVX, describe_exit, describe_returncode, oom_kills
from bouquet.executor.worker_state import (
    EXIT_SECONDS,
    HEARTBEAT_SECONDS,
    KILL_GRACE_SECONDS,
    Deadline,
    Limits,
    Phase,
    TaskInHand,
    WorkerState,
)
from bouquet.flower.task_queue import RuntimeApi
from bouquet.restart_policy import RestartPolicy
from bouquet.runtime.log import LOGGER
from bouquet.settings.executor_settings import ExecutorSettings

ZYGOTE_FIRST_PAUSE_SECONDS = 1.0
"""Pause before a zygote that ended is restarted; it doubles while zygotes keep ending."""
ZYGOTE_LONGEST_PAUSE_SECONDS = 5.0
"""The pause stops doubling here."""
ZYGOTE_MAX_FAILED_STARTS = 5
"""How many zygotes in a row may end before they are ready; the executor gives up at the next one."""
ZYGOTE_EXIT_SECONDS = KILL_GRACE_SECONDS + 0.5
"""How long `stop` waits for the zygote, which gives its workers the grace time."""
FAIL_SECONDS = 1.0
"""How long `stop` waits until the server knows that tasks have failed."""
EXIT_CODE_OF_FAILURE = 70
"""Exit code of this process if the executor fails and `start` was given no `on_failure`: EX_SOFTWARE of sysexits.h."""

STILL_THERE = f"[RUN %s] The %s process is killed: its exit handlers and threads took longer than {EXIT_SECONDS:g} s"
APP_NAMES = {"clientapp": "ClientApp", "serverapp": "ServerApp"}


class Task(Protocol):
    """A pending task, as Flower describes it."""

    @property
    def task_id(self) -> int:
        """Its id."""

    @property
    def type(self) -> str:
        """What runs it: a ClientApp or a ServerApp."""

    @property
    def run_id(self) -> int:
        """The run that it belongs to."""


AnyTask = TypeVar("AnyTask", bound=Task)


class TaskSource(Protocol[AnyTask]):
    """What an executor needs of the Runtime API; `bouquet.flower.task_queue.TaskQueue` documents it."""

    def pending(self) -> Sequence[AnyTask]:
        """Wait for pending tasks, and return them."""

    def claim(self, task: AnyTask) -> str | None:
        """Claim a task; return its token, or None if that failed."""

    def heartbeat(self, token: str) -> bool:
        """Keep a claimed task alive; return whether it still exists."""

    def fail(self, token: str, reason: str, message: bytes | None = None) -> None:
        """Fail a claimed task whose process has died, and answer its message."""

    def finish(self, token: str, reason: str) -> None:
        """End a claimed task that has replied, but whose process died afterwards."""


class ZygoteProcess(Protocol):
    """What an executor needs of the zygote's process: see `subprocess.Popen`."""

    pid: int

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its return code."""

    def kill(self) -> None:
        """Kill it."""


def start_zygote(channel_descriptor: int, preload: Sequence[str]) -> ZygoteProcess:
    """Start a zygote that imports the modules `preload`, and give it its end of a channel."""
    command = [sys.executable, "-P", "-m", "bouquet.executor.zygote"]
    command += ["--channel", str(channel_descriptor), "--parent", str(os.getpid()), "--preload", *preload]
    return subprocess.Popen(command, pass_fds=[channel_descriptor], stdin=subprocess.DEVNULL)


@dataclass
class _Worker:
    """A worker process of one run: the executor's number for it, the channel to it, and its state."""

    number: int
    run_id: int
    channel: Channel
    state: WorkerState


@dataclass
class _Zygote:
    """The zygote's process, the channel to it, whether it can fork workers, and the container's OOM kills before it."""

    process: ZygoteProcess
    channel: Channel
    ready: bool = False
    oom_kills: int = field(default_factory=oom_kills)


class Executor:
    """Works on the pending tasks of one Runtime API.

    Args:
        tasks: The tasks.
        api: Where workers reach the Runtime API.
        settings: What to run, and within which limits.
        start_zygote: Starts the zygote, from the file descriptor of its channel and the modules to import.
        app_folders: The working directories of the apps, one for each run. None: apps run in that of this process.

    Attributes:
        on_task: Called with the run's id when a task begins, and with None when it has ended.
    """

    def __init__(
        self,
        tasks: TaskSource[Any],
        api: RuntimeApi,
        settings: ExecutorSettings,
        start_zygote: Callable[[int, Sequence[str]], ZygoteProcess] = start_zygote,
        app_folders: AppFolders | None = None,
    ) -> None:
        self.on_task: Callable[[int | None], None] = lambda run_id: None
        self._tasks = tasks
        self._api = api
        self._settings = settings
        self._limits = Limits(settings.idle_seconds, settings.task_seconds, HEARTBEAT_SECONDS, KILL_GRACE_SECONDS)
        self._preload = to_preload() if settings.preload is None else settings.preload
        self._start_zygote = start_zygote
        self._app_folders = app_folders
        self._restart_policy = RestartPolicy(ZYGOTE_FIRST_PAUSE_SECONDS, ZYGOTE_LONGEST_PAUSE_SECONDS)
        self._failed_starts = 0  # zygotes in a row that ended before they were ready; of the supervise thread
        self._on_failure: Callable[[str], None] = lambda reason: os._exit(EXIT_CODE_OF_FAILURE)
        self._on_ready: Callable[[bool], None] = lambda ready: None
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._wake_read, self._wake_write = os.pipe()  # wakes the supervise thread
        os.set_blocking(self._wake_write, False)

        self._lock = threading.RLock()  # an exit handler may call stop() in a thread that holds it
        self._changed = threading.Condition(self._lock)  # there may be room for a task
        self._workers: dict[int, _Worker] = {}  # by number
        self._next_number = 0
        self._forked_run: int | None = None  # the run of the newest worker
        self._zygote: _Zygote | None = None

    # Start and stop

    def start(
        self, on_ready: Callable[[bool], None] | None = None, on_failure: Callable[[str], None] | None = None
    ) -> None:
        """Start the zygote and both threads.

        Args:
            on_ready: Called with whether tasks can be worked on, each time that changes.
            on_failure: Called with the reason if the executor fails and stops working. By default the process exits.
        """
        self._on_ready = on_ready or self._on_ready
        self._on_failure = on_failure or self._on_failure
        self._spawn_zygote()
        for loop in (self._supervise, self._dispatch):
            threading.Thread(target=self._guard, args=(loop,), name=f"executor{loop.__name__}", daemon=True).start()

    def stop(self, reason: str | None = None) -> None:
        """End all processes: takes 7 s at most. Their tasks fail with `reason`, if one is given."""
        with self._lock:
            self._stopping.set()
            self._changed.notify_all()
            zygote = self._zygote
            states = [worker.state for worker in self._workers.values()]
            tasks = [state.task for state in states if state.task and state.phase is not Phase.EXITED]
        self._wake()
        if reason is not None and tasks:
            thread = threading.Thread(target=self._fail_all, args=(tasks, reason), daemon=True)
            thread.start()
            thread.join(FAIL_SECONDS)
        if zygote:
            zygote.channel.end_sending()  # the zygote ends its workers, then itself
            try:
                zygote.process.wait(timeout=ZYGOTE_EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                zygote.process.kill()  # the kernel kills its workers with it
        if self._app_folders:
            self._app_folders.remove_all()
        self._stopped.set()

    def end_run(self, run_id: int) -> None:
        """End the processes of a run that has ended, then remove its working directory."""
        if self._app_folders:
            self._app_folders.run_ended(run_id)
        with self._lock:
            for worker in self._workers.values():
                if worker.run_id == run_id:
                    self._end(worker, "was ended with its run")
        self._wake()

    def is_responsive(self) -> bool:
        """Return True once the state of the workers can be read; waits for ever if a thread has deadlocked."""
        with self._lock:
            return True

    def _fail_all(self, tasks: Sequence[TaskInHand], reason: str) -> None:
        for task in tasks:
            with suppress(Exception):  # for example, the server has stopped too
                self._tasks.fail(task.token, reason, task.message)

    def _guard(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:  # without this thread the node would be online and work on nothing
            if not self._stopping.is_set():
                LOGGER.error("The executor has failed", exc_info=error)
                self._on_failure(f"{type(error).__name__}: {error}")

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full: the thread wakes anyway
            os.write(self._wake_write, b".")

    # The dispatch thread: tasks

    def _dispatch(self) -> None:
        while not self._stopping.is_set():
            for task in self._tasks.pending():
                if not self._wait_for_room():
                    return
                if token := self._tasks.claim(task):
                    self._assign(task.run_id, token)

    def _wait_for_room(self) -> bool:
        """Wait until another task can be worked on; return False if the executor stops."""
        with self._lock:
            self._changed.wait_for(lambda: self._stopping.is_set() or self._has_room())
            return not self._stopping.is_set()

    def _has_room(self) -> bool:
        if not self._zygote or not self._zygote.ready:
            return False
        if self._settings.app == "clientapp":  # one message at a time, like Flower's own SuperNode
            return all(worker.state.task is None for worker in self._workers.values())
        return len(self._workers) < self._settings.workers

    def _assign(self, run_id: int, token: str) -> None:
        self.on_task(run_id)
        with self._lock:
            worker = self._worker_for(run_id)
            if worker:
                worker.state.assign(token, time.monotonic())
                _send(worker.channel, {"token": token})  # if it has just died, its task fails when it is reaped
        if worker:
            self._wake()
        else:
            self._settle(run_id, TaskInHand(token), "died with the executor's zygote")

    def _worker_for(self, run_id: int) -> _Worker | None:
        """Return the idle worker of a run, or a new one. None if the zygote has died since there was room."""
        idle = [worker for worker in self._workers.values() if worker.state.phase is Phase.IDLE]
        for worker in idle:
            if worker.run_id == run_id:
                return worker
        if idle and len(self._workers) >= self._settings.workers:
            self._end(min(idle, key=lambda worker: worker.state.since), "made room for another run")
        return self._fork(self._zygote, run_id) if self._zygote else None

    def _fork(self, zygote: _Zygote, run_id: int) -> _Worker:
        """Have the zygote fork a worker for a run."""
        ours, theirs = Channel.pair()
        worker = _Worker(self._next_number, run_id, ours, WorkerState(self._limits, time.monotonic()))
        self._next_number += 1
        self._workers[worker.number] = worker
        work = {
            "app": self._settings.app,
            "run_id": run_id,
            "parent": zygote.process.pid,
            "api": asdict(self._api),
            "report": run_id != self._forked_run,
            "bounds": {"messages": self._settings.messages, "growth_mib": self._settings.growth_mib},
            "folder": str(self._app_folders.of(run_id)) if self._app_folders else None,
        }
        self._forked_run = run_id
        _send(zygote.channel, {"worker": worker.number, "work": work}, theirs.fileno())
        theirs.close()
        return worker

    # The supervise thread: processes and deadlines

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            workers, zygote = self._wait_for_messages()
            for worker in workers:
                self._receive(worker)
            if zygote:  # after its workers: it may report that one of them has exited
                self._receive_from_zygote(zygote)
            self._enforce_deadlines()
            if self._app_folders:
                self._app_folders.remove_unused(self._runs_with_workers())
        # The kernel kills a zygote that this thread has started when this thread ends.
        self._stopped.wait(FAIL_SECONDS + ZYGOTE_EXIT_SECONDS)

    def _wait_for_messages(self) -> tuple[list[_Worker], _Zygote | None]:
        """Wait for a message, a deadline or `_wake`; return the workers and the zygote that sent something."""
        poller = select.poll()  # a new one each time, because the dispatch thread adds workers
        poller.register(self._wake_read, select.POLLIN)
        with self._lock:
            zygote = self._zygote
            workers = {w.channel.fileno(): w for w in self._workers.values() if w.state.channel_open}
            for descriptor in workers:
                poller.register(descriptor, select.POLLIN)
            if zygote:
                poller.register(zygote.channel.fileno(), select.POLLIN)
            deadlines = [at for worker in self._workers.values() for at in worker.state.deadlines().values()]
        timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        ready = {descriptor for descriptor, _ in poller.poll(None if timeout is None else timeout * 1000 + 1)}
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        senders = [worker for descriptor, worker in workers.items() if descriptor in ready]
        return senders, zygote if zygote and zygote.channel.fileno() in ready else None

    def _receive(self, worker: _Worker) -> None:
        message, _ = worker.channel.receive()
        if message is not None:
            self._on_message(worker, message)
            return
        with self._lock:  # the zygote reports the exit soon
            worker.state.channel_closed(time.monotonic())

    def _on_message(self, worker: _Worker, message: dict[str, Any]) -> None:
        """Note what a worker reports about its task."""
        pulled = b64decode(message.get("pulled", ""))
        with self._lock:
            if worker.state.task is None:  # an app has got hold of the channel
                return
            if "pulled" in message:
                worker.state.pulled(pulled)
            elif "replied" in message:
                worker.state.replied()
        if "done" in message:
            self.on_task(None)  # first, because the next task may begin as soon as this one is done
            with self._lock:
                worker.state.done(message["done"], time.monotonic())
                self._changed.notify_all()

    def _runs_with_workers(self) -> set[int]:
        with self._lock:
            return {worker.run_id for worker in self._workers.values()}

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        heartbeats: list[tuple[_Worker, str]] = []
        with self._lock:
            for worker in self._workers.values():
                state = worker.state
                match state.due(now):
                    case Deadline.KILL:
                        if not state.task:
                            LOGGER.warning(STILL_THERE, worker.run_id, APP_NAMES[self._settings.app])
                        state.killed(now)
                        self._signal(worker, signal.SIGKILL)
                    case Deadline.TASK_LIMIT:
                        state.time_out(now)
                        self._signal(worker, signal.SIGKILL)
                    case Deadline.HEARTBEAT if state.task:
                        state.heartbeat(now)
                        heartbeats.append((worker, state.task.token))
                    case Deadline.IDLE_LIMIT:
                        self._end(worker, "had nothing to do")
        for worker, token in heartbeats:
            if not self._tasks.heartbeat(token):
                with self._lock:
                    self._end(worker, "was ended with its run")

    def _end(self, worker: _Worker, reason: str) -> None:
        """End a worker unless it is ending: by SIGTERM if it has a task, otherwise by the end of its channel."""
        if not worker.state.can_end:
            return
        worker.state.end(reason, time.monotonic())
        if worker.state.task:
            self._signal(worker, signal.SIGTERM)
        else:
            worker.channel.end_sending()

    def _signal(self, worker: _Worker, number: signal.Signals) -> None:
        if self._zygote:
            _send(self._zygote.channel, {"worker": worker.number, "signal": int(number)})

    def _reap(self, worker: _Worker, cause: str, crashed: bool = False) -> None:
        """Settle the task of a worker whose process has ended, and forget the worker."""
        with self._lock:
            worker.state.exited(time.monotonic())
        for message in worker.channel.drain():
            self._on_message(worker, message)
        worker.channel.close()
        with self._lock:
            task, end_reason = worker.state.task, worker.state.end_reason
        if task:
            self._settle(worker.run_id, task, end_reason or cause)
        elif crashed:  # its exit handlers may not have run
            name = APP_NAMES[self._settings.app]
            LOGGER.warning("[RUN %s] The %s process %s after its last task", worker.run_id, name, cause)
        with self._lock:
            del self._workers[worker.number]
            self._changed.notify_all()

    def _settle(self, run_id: int, task: TaskInHand, cause: str) -> None:
        """Answer for a task whose worker has died."""
        reason = f"The {APP_NAMES[self._settings.app]} process {cause}."
        LOGGER.warning("[RUN %s] %s", run_id, reason)
        try:
            if task.replied:
                self._tasks.finish(task.token, reason)
            else:
                self._tasks.fail(task.token, reason, task.message)
        except Exception as error:  # for example, the run was stopped meanwhile
            LOGGER.info("[RUN %s] The task had already ended: %s", run_id, _first_line(error))
        self.on_task(None)

    # The zygote, in the supervise thread

    def _spawn_zygote(self) -> None:
        ours, theirs = Channel.pair()
        self._restart_policy.note_start()
        process = self._start_zygote(theirs.fileno(), self._preload)
        theirs.close()
        with self._lock:
            self._zygote = _Zygote(process, ours)
            stopped = self._stopping.is_set()
        if stopped:  # stop() has not seen this one
            process.kill()

    def _receive_from_zygote(self, zygote: _Zygote) -> None:
        message, _ = zygote.channel.receive()
        if message is None:
            if not self._stopping.is_set():
                self._replace_zygote(zygote)
        elif "ready" in message:
            self._failed_starts = 0
            with self._lock:
                zygote.ready = True
                self._changed.notify_all()
            self._on_ready(True)
            LOGGER.info("Executor ready: %s", ", ".join(self._preload) or "nothing preloaded")
        elif "exited" in message:
            with self._lock:
                worker = self._workers.get(message["exited"])
            if worker:
                status = message.get("status", 0)
                crashed = os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL
                self._reap(worker, message.get("error") or describe_exit(status, message["oom"]), crashed)

    def _replace_zygote(self, zygote: _Zygote) -> None:
        """Settle the tasks of all workers, which died with their zygote, and start another zygote after a pause."""
        zygote.process.kill()
        returncode = zygote.process.wait()
        pause = self._restart_policy.next_pause()
        with self._lock:
            self._zygote = None
            was_ready = zygote.ready
            workers = list(self._workers.values())
        zygote.channel.close()
        if was_ready:
            self._on_ready(False)
        else:
            self._failed_starts += 1
        how = describe_returncode(returncode, oom_kills() > zygote.oom_kills)
        LOGGER.warning("The executor's zygote %s", how)
        if returncode == -signal.SIGILL and not was_ready:
            raise RuntimeError(f"the import of {', '.join(self._preload)} died with SIGILL: {LACKS_AVX}")
        for worker in workers:
            self._reap(worker, f"died with the executor's zygote, which {how}")
        if self._failed_starts > ZYGOTE_MAX_FAILED_STARTS:
            raise RuntimeError(f"the executor's zygote ended {self._failed_starts} times before it was ready")
        LOGGER.warning("Restarting the executor's zygote%s", f" in {pause:g} s" if pause else "")
        if not self._stopping.wait(pause):
            self._spawn_zygote()


def _send(channel: Channel, message: dict[str, Any], descriptor: int | None = None) -> None:
    """Send a message without waiting. If the process has died, the supervise thread soon learns of it."""
    with suppress(OSError):
        channel.send(message, descriptor, wait=False)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
