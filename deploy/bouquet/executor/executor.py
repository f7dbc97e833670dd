"""The executor: claims Flower's tasks and has them worked on by warm processes.

It takes the place of Flower's SuperExec and lives in two threads: of the SuperNode's process whose tasks it works on,
or of the process that keeps the SuperLink running, so that neither can be there without the other. What runs apps are
processes of their own: forks of the zygote.
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
from logging import ERROR, INFO, WARNING
from typing import Any, Protocol

from flwr.common.logger import log
from flwr.proto.task_pb2 import Task

from bouquet.executor.channel import Channel
from bouquet.executor.linux import describe_exit, oom_kills
from bouquet.flower.task_queue import RuntimeApi
from bouquet.settings.executor_settings import ExecutorSettings

BEAT = 5.0  # seconds between two signs of life per task; Flower gives a task up after 60
KILL_GRACE = 1.0  # seconds between SIGTERM and SIGKILL
RESPAWN_PAUSE = 1.0  # seconds before a zygote that died is replaced, doubled at each death
RESPAWN_LIMIT = 5  # deaths before it ever became ready, after which the executor gives up


class Tasks(Protocol):
    """What an executor needs of the Runtime API: see `bouquet.flower.task_queue.TaskQueue`."""

    def pending(self) -> Sequence[Task]: ...  # noqa: D102
    def claim(self, task: Task) -> str | None: ...  # noqa: D102
    def heartbeat(self, token: str) -> bool: ...  # noqa: D102
    def fail(self, token: str, reason: str, message: bytes | None = None) -> None: ...  # noqa: D102
    def finish(self, token: str, reason: str) -> None: ...  # noqa: D102


@dataclass
class _Worker:
    """A process and what it is doing."""

    number: int
    run_id: int
    channel: Channel
    token: str | None = None  # of the task it works on
    message: bytes | None = None  # of that task, once it has it
    replied: bool = False
    since: float = field(default_factory=time.monotonic)  # when it began to work or to wait
    beaten: float = 0.0
    retired: bool = False  # takes no more tasks
    gone: bool = False  # has closed its end
    killed_because: str | None = None
    kill_at: float | None = None  # when SIGTERM is followed by SIGKILL
    oom_kills: int = field(default_factory=oom_kills)


class Executor:
    """Works on the pending tasks of one Runtime API."""

    def __init__(self, tasks: Tasks, api: RuntimeApi, settings: ExecutorSettings) -> None:
        self._tasks = tasks
        self._api = api
        self._settings = settings
        self._changed = threading.Condition()  # guards all below
        self._workers: dict[int, _Worker] = {}
        self._next = 0
        self._zygote: subprocess.Popen[bytes] | None = None
        self._zygote_channel: Channel | None = None
        self._zygote_ready = False
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        self._on_failure: Callable[[str], None] = lambda reason: os._exit(70)
        self._on_ready: Callable[[bool], None] = lambda ready: None
        self.on_task: Callable[[int | None], None] = lambda run_id: None

    # Life

    def start(
        self, on_ready: Callable[[bool], None] | None = None, on_failure: Callable[[str], None] | None = None
    ) -> None:
        """Start the zygote and both threads.

        `on_ready` is called with whether tasks can be worked on, each time that changes; `on_failure` if the
        executor cannot go on.
        """
        self._on_ready = on_ready or self._on_ready
        self._on_failure = on_failure or self._on_failure
        self._spawn_zygote()
        for work in (self._supervise, self._dispatch):
            threading.Thread(target=self._guard, args=(work,), name=f"executor{work.__name__}", daemon=True).start()

    def stop(self, reason: str | None = None) -> None:
        """End all processes: takes a second or two at most. Their tasks fail with `reason`, if one is given."""
        with self._changed:
            self._stopping = True
            zygote, channel = self._zygote, self._zygote_channel
            working = [worker for worker in self._workers.values() if worker.token]
            self._changed.notify_all()
        self._wake()
        if reason is not None and working:
            telling = threading.Thread(target=self._fail_all, args=(working, reason), daemon=True)
            telling.start()
            telling.join(KILL_GRACE)
        if zygote and channel:
            channel.shut()  # the zygote ends its workers, then itself
            try:
                zygote.wait(timeout=KILL_GRACE + 0.5)
            except subprocess.TimeoutExpired:
                zygote.kill()  # and the kernel its workers

    def _fail_all(self, workers: list[_Worker], reason: str) -> None:
        for worker in workers:
            with suppress(Exception):  # such as: nobody is there to be told
                self._tasks.fail(worker.token or "", reason, worker.message)

    def end_run(self, run_id: int) -> None:
        """End the processes of a run that has ended."""
        with self._changed:
            for worker in self._workers.values():
                if worker.run_id == run_id:
                    self._end(worker, "was ended with its run")
        self._wake()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # without this thread the node would be online for nothing
            if not self._stopping:
                log(ERROR, "The executor has failed", exc_info=error)
                self._on_failure(f"{type(error).__name__}: {error}")

    def _wake(self) -> None:
        os.write(self._wake_write, b".")

    # Tasks: the thread that waits for the server

    def _dispatch(self) -> None:
        while True:
            for task in self._tasks.pending():
                if not self._wait_for_room():
                    return
                if token := self._tasks.claim(task):
                    self._give(task, token)

    def _has_room(self) -> bool:
        if not self._zygote_ready:
            return False
        if self._settings.app == "clientapp":  # as a stock SuperNode: one message at a time
            return all(worker.token is None for worker in self._workers.values())
        return len(self._workers) < self._settings.workers

    def _wait_for_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._has_room())
            return not self._stopping

    def _give(self, task: Task, token: str) -> None:
        self.on_task(task.run_id)
        with self._changed:
            worker = self._worker_for(task.run_id)
            worker.token, worker.message, worker.replied = token, None, False
            worker.since = worker.beaten = time.monotonic()
            with suppress(OSError):  # it has just died: its exit is on the way, and the task fails with it
                worker.channel.send({"token": token})
        self._wake()

    def _worker_for(self, run_id: int) -> _Worker:
        for worker in self._workers.values():
            if worker.run_id == run_id and worker.token is None and not worker.retired:
                return worker
        idle = [worker for worker in self._workers.values() if worker.token is None and not worker.retired]
        if len(self._workers) >= self._settings.workers and idle:
            self._end(min(idle, key=lambda worker: worker.since), "made room for another run")
        return self._fork(run_id)

    def _fork(self, run_id: int) -> _Worker:
        ours, theirs = Channel.pair()
        worker = _Worker(self._next, run_id, ours)
        self._next += 1
        self._workers[worker.number] = worker
        assert self._zygote and self._zygote_channel  # noqa: S101 # `_has_room` has seen to it
        work = {"app": self._settings.app, "run_id": run_id, "parent": self._zygote.pid, "api": asdict(self._api)}
        with suppress(OSError):  # the zygote has just died: the supervisor fails the tasks of all its workers
            self._zygote_channel.send({"worker": worker.number, "work": work}, theirs.fileno())
        theirs.close()
        return worker

    # Processes: the thread that waits for them

    def _supervise(self) -> None:
        deaths = 0
        while not self._stopping:
            poller = select.poll()  # a new one each time: file descriptors come and go in the other thread
            poller.register(self._wake_read, select.POLLIN)
            with self._changed:
                workers = {worker.channel.fileno(): worker for worker in self._workers.values() if not worker.gone}
                zygote = self._zygote_channel.fileno() if self._zygote_channel else None
                for descriptor in (*workers, zygote):
                    if descriptor is not None:
                        poller.register(descriptor, select.POLLIN)
                timeout = self._next_deadline()
            for descriptor, _ in poller.poll(None if timeout is None else timeout * 1000 + 1):
                if descriptor == self._wake_read:
                    os.read(self._wake_read, 4096)
                elif descriptor in workers:
                    self._hear(workers[descriptor])
                elif self._hear_zygote():
                    deaths = 0
                elif not self._stopping:
                    deaths += 1
                    self._bury_zygote(deaths)
                    break
            self._enforce_deadlines()

    def _hear(self, worker: _Worker) -> None:
        message, _ = worker.channel.receive()
        if message is not None:
            self._take(worker, message)
            return
        with self._changed:  # it is ending, and the zygote will tell how, unless an app closed what is not its own
            worker.gone = worker.retired = True
            worker.kill_at = worker.kill_at or time.monotonic() + KILL_GRACE

    def _take(self, worker: _Worker, message: dict[str, Any]) -> None:
        """Note what a worker says about its task."""
        with self._changed:
            if "pulled" in message:
                worker.message = b64decode(message["pulled"])
            elif "replied" in message:
                worker.replied = True
            elif "done" in message:
                worker.token = worker.message = None
                worker.since = time.monotonic()
                worker.retired = worker.retired or not message["done"]
                self.on_task(None)  # before the next task can be given
                self._changed.notify_all()

    def _hear_zygote(self) -> bool:
        """Take one message of the zygote; False if it has gone."""
        assert self._zygote_channel  # noqa: S101
        message, _ = self._zygote_channel.receive()
        if message is None:
            return False
        if "ready" in message:
            with self._changed:
                self._zygote_ready = True
                self._changed.notify_all()
            self._on_ready(True)
            log(INFO, "Executor ready: %s", ", ".join(self._settings.preload) or "nothing preloaded")
        elif "exited" in message:
            with self._changed:
                worker = self._workers.pop(message["exited"], None)
            if worker:
                cause = message.get("error") or describe_exit(
                    message["status"], oom=message["oom_kills"] > worker.oom_kills
                )
                self._bury(worker, cause)
        return True

    def _bury(self, worker: _Worker, cause: str) -> None:
        """See to the task of a worker that has ended."""
        for message in worker.channel.waiting():  # what it still said
            self._take(worker, message)
        worker.channel.close()
        token, message_bytes = worker.token, worker.message
        if token:
            name = {"clientapp": "ClientApp", "serverapp": "ServerApp"}[self._settings.app]
            reason = f"The {name} process {worker.killed_because or cause}."
            log(WARNING, "[RUN %s] %s", worker.run_id, reason)
            try:
                if worker.replied:
                    self._tasks.finish(token, reason)
                else:
                    self._tasks.fail(token, reason, message_bytes)
            except Exception as error:  # such as: the task was ended meanwhile
                log(INFO, "[RUN %s] Nobody waits for the task any more: %s", worker.run_id, _line(error))
        with self._changed:
            if worker.token:
                self.on_task(None)
            worker.token = None
            self._changed.notify_all()

    def _next_deadline(self) -> float | None:
        """Seconds until something is to be done without anyone asking for it."""
        deadlines = []
        for worker in self._workers.values():
            if worker.kill_at is not None:
                deadlines.append(worker.kill_at)
            elif worker.token:
                deadlines.append(worker.beaten + BEAT)
                if self._settings.task_seconds:
                    deadlines.append(worker.since + self._settings.task_seconds)
            elif not worker.retired:
                deadlines.append(worker.since + self._settings.idle_seconds)
            else:
                deadlines.append(worker.since + KILL_GRACE)
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        limit = self._settings.task_seconds
        with self._changed:
            workers = list(self._workers.values())
        for worker in workers:
            if worker.kill_at is not None:
                if now >= worker.kill_at:
                    worker.killed_because = worker.killed_because or "did not end after its channel was closed"
                    self._kill(worker, signal.SIGKILL)
                    worker.kill_at = now + KILL_GRACE
            elif worker.token:
                if limit and now >= worker.since + limit:
                    worker.killed_because = f"took longer than {limit:g} s and was killed"
                    self._kill(worker, signal.SIGKILL)
                    worker.kill_at = now + KILL_GRACE
                elif now >= worker.beaten + BEAT:
                    worker.beaten = now
                    if not self._tasks.heartbeat(worker.token):
                        self._end(worker, "was ended with its run")
            elif worker.retired:
                if now >= worker.since + KILL_GRACE:
                    self._end(worker, "did not end by itself")
            elif now >= worker.since + self._settings.idle_seconds:
                self._end(worker, "had nothing to do")

    def _end(self, worker: _Worker, because: str) -> None:
        """Have a worker end: by itself if it is idle, else by signals."""
        if worker.kill_at is not None:
            return
        worker.retired = True
        worker.killed_because = worker.killed_because or because
        worker.kill_at = time.monotonic() + KILL_GRACE
        if worker.token:
            self._kill(worker, signal.SIGTERM)
        else:
            worker.channel.shut()

    def _kill(self, worker: _Worker, number: signal.Signals) -> None:
        with suppress(OSError):
            if self._zygote_channel:
                self._zygote_channel.send({"worker": worker.number, "signal": int(number)})

    # The zygote

    def _spawn_zygote(self) -> None:
        ours, theirs = Channel.pair()
        command = [sys.executable, "-P", "-m", "bouquet.executor.zygote"]
        command += ["--channel", str(theirs.fileno()), "--parent", str(os.getpid())]
        command += ["--preload", *self._settings.preload]
        self._zygote = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        with self._changed:
            self._zygote_channel = ours

    def _bury_zygote(self, deaths: int) -> None:
        """Fail what its workers, who died with it, were working on, and start another."""
        assert self._zygote and self._zygote_channel  # noqa: S101
        self._zygote.kill()
        status = self._zygote.wait()
        log(WARNING, "The executor's zygote has died (%s): starting another", status)
        self._on_ready(False)
        with self._changed:
            self._zygote_ready = False
            self._zygote_channel.close()
            self._zygote_channel = None
            workers = list(self._workers.values())
            self._workers.clear()
        for worker in workers:
            self._bury(worker, "died with the executor's zygote")
        if deaths > RESPAWN_LIMIT:
            raise RuntimeError("the executor's zygote dies again and again")
        time.sleep(RESPAWN_PAUSE * deaths)
        self._spawn_zygote()


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
