"""A Runtime API, a zygote and workers for an executor, in the test's own process: the test plays all of them."""

import os
import select
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

from bouquet.executor.app_folders import AppFolders
from bouquet.executor.channel import Channel
from bouquet.executor.executor import Executor
from bouquet.flower.task_queue import RuntimeApi
from bouquet.settings.executor_settings import ExecutorSettings

PATIENCE_SECONDS = 5.0
"""How long a test waits for what must happen."""


@dataclass(frozen=True)
class FakeTask:
    task_id: int
    run_id: int
    type: str = "clientapp"


@dataclass(frozen=True)
class Outcome:
    """How the executor ended a task itself."""

    how: str  # "fail" or "finish"
    token: str
    reason: str
    message: bytes | None = None


class FakeTasks:
    """The pending tasks. The token of task 3 is "token 3"."""

    def __init__(self, check: Callable[[str], None]) -> None:
        self.outcomes: Queue[Outcome] = Queue()
        self.claims: Queue[int] = Queue()
        self.heartbeats: Queue[str] = Queue()
        self.ended: set[str] = set()  # tokens of tasks that no longer exist
        self.on_claim: Callable[[], None] = lambda: None
        self.error: Exception | None = None  # raised by the next call of `pending`
        self._check = check
        self._changed = threading.Condition()
        self._pending: list[FakeTask] = []
        self._last_id = 0

    def add(self, run_id: int) -> str:
        """Add a task; return the token that it will have."""
        with self._changed:
            self._last_id += 1
            self._pending.append(FakeTask(self._last_id, run_id))
            self._changed.notify_all()
            return f"token {self._last_id}"

    def break_down(self, error: Exception) -> None:
        with self._changed:
            self.error = error
            self._changed.notify_all()

    def pending(self) -> Sequence[FakeTask]:
        self._check("pending")
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self.error, PATIENCE_SECONDS)
            if self.error:
                raise self.error
            return list(self._pending)

    def claim(self, task: FakeTask) -> str | None:
        self._check("claim")
        with self._changed:
            self._pending.remove(task)
        self.on_claim()
        self.claims.put(task.run_id)
        return f"token {task.task_id}"

    def heartbeat(self, token: str) -> bool:
        self._check("heartbeat")
        self.heartbeats.put(token)
        return token not in self.ended

    def fail(self, token: str, reason: str, message: bytes | None = None) -> None:
        self._check("fail")
        self.outcomes.put(Outcome("fail", token, reason, message))
        if token in self.ended:
            raise RuntimeError("no such task\nand more about it")

    def finish(self, token: str, reason: str) -> None:
        self._check("finish")
        self.outcomes.put(Outcome("finish", token, reason))


def receive(channel: Channel) -> tuple[dict[str, Any] | None, int | None]:
    assert select.select([channel], [], [], PATIENCE_SECONDS)[0], "no message arrived"
    return channel.receive()


class FakeZygote:
    """A zygote and its process."""

    def __init__(self, descriptor: int, preload: Sequence[str]) -> None:
        self.pid = 4711
        self.preload = preload
        self.channel = Channel.from_descriptor(os.dup(descriptor))
        self.workers: list[FakeWorker] = []
        self.returncode: int | None = None
        self.ends_when_told = True
        self.killed = False

    # What an executor needs

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not self.ends_when_told:
                raise subprocess.TimeoutExpired("zygote", timeout or 0)
            self.returncode = 0
        return self.returncode

    def kill(self) -> None:
        self.killed = True
        if self.returncode is None:
            self.returncode = -9

    # What a test does

    def become_ready(self) -> None:
        self.channel.send({"ready": self.pid})

    def next_worker(self) -> "FakeWorker":
        """Fork as requested; signals for other workers are skipped."""
        request, descriptor = receive(self.channel)
        while request is not None and "signal" in request:
            request, descriptor = receive(self.channel)
        assert request is not None and descriptor is not None, f"no request for a worker: {request}"
        worker = FakeWorker(self, request["worker"], Channel.from_descriptor(descriptor), request["work"])
        self.workers.append(worker)
        return worker

    def next_signal(self) -> tuple[int, int]:
        """Return which worker gets which signal."""
        request, _ = receive(self.channel)
        assert request is not None and "signal" in request, f"no signal: {request}"
        return request["worker"], request["signal"]

    def is_told_to_end(self) -> bool:
        return receive(self.channel) == (None, None)

    def has_requests(self) -> bool:
        return bool(select.select([self.channel], [], [], 0)[0])

    def die(self, returncode: int) -> None:
        """End, and all workers with it."""
        self.returncode = returncode
        for worker in self.workers:
            worker.channel.close()
        self.channel.close()


@dataclass
class FakeWorker:
    zygote: FakeZygote
    number: int
    channel: Channel
    work: dict[str, Any]

    def next_token(self) -> str:
        message, _ = receive(self.channel)
        assert message is not None, "the executor has closed the channel"
        token: str = message["token"]
        return token

    def is_told_to_end(self) -> bool:
        return receive(self.channel) == (None, None)

    def exit(self, code: int = 0, signal_number: int = 0, oom: bool = False) -> None:
        self.channel.close()
        status = signal_number or code << 8
        self.zygote.channel.send({"exited": self.number, "status": status, "oom": oom})


@dataclass
class Harness:
    """An executor with everything around it, and what it reports."""

    settings: ExecutorSettings
    app_folders: AppFolders | None = None
    ready: Queue[bool] = field(default_factory=Queue)
    failures: Queue[str] = field(default_factory=Queue)
    task_runs: Queue[int | None] = field(default_factory=Queue)
    zygotes: Queue[FakeZygote] = field(default_factory=Queue)
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tasks = FakeTasks(self.check)
        self.api = RuntimeApi("127.0.0.1:9094")
        self.executor = Executor(self.tasks, self.api, self.settings, self._start_zygote, self.app_folders)
        self.executor.on_task = self._on_task

    def check(self, call: str) -> None:
        """Note a call that was made while holding the executor's lock."""
        if self.executor._lock._is_owned():  # type: ignore[attr-defined]
            self.violations.append(call)

    def start(self) -> FakeZygote:
        self.executor.start(self._on_ready, self._on_failure)
        return self.next_zygote()

    def start_ready(self) -> FakeZygote:
        zygote = self.start()
        zygote.become_ready()
        assert self.ready.get(timeout=PATIENCE_SECONDS)
        return zygote

    def next_zygote(self) -> FakeZygote:
        return self.zygotes.get(timeout=PATIENCE_SECONDS)

    def next_outcome(self) -> Outcome:
        return self.tasks.outcomes.get(timeout=PATIENCE_SECONDS)

    def next_run(self) -> int | None:
        """Return what `on_task` is called with next."""
        return self.task_runs.get(timeout=PATIENCE_SECONDS)

    def begin(self, zygote: FakeZygote, run_id: int = 1) -> tuple[FakeWorker, str]:
        """Have a new worker begin a task; return both."""
        token = self.tasks.add(run_id)
        worker = zygote.next_worker()
        assert worker.work["run_id"] == run_id
        assert worker.next_token() == token
        assert self.next_run() == run_id
        return worker, token

    def complete(self, worker: FakeWorker, usable: bool = True) -> None:
        """Have a worker complete its task."""
        worker.channel.send({"pulled": "bWVzc2FnZQ=="})
        worker.channel.send({"replied": True})
        worker.channel.send({"done": usable})
        assert self.next_run() is None

    def _start_zygote(self, descriptor: int, preload: Sequence[str]) -> FakeZygote:
        self.check("start_zygote")
        zygote = FakeZygote(descriptor, preload)
        self.zygotes.put(zygote)
        return zygote

    def _on_ready(self, ready: bool) -> None:
        self.check("on_ready")
        self.ready.put(ready)

    def _on_failure(self, reason: str) -> None:
        self.check("on_failure")
        self.failures.put(reason)

    def _on_task(self, run_id: int | None) -> None:
        self.check("on_task")
        self.task_runs.put(run_id)


@contextmanager
def harness(app_folders: AppFolders | None = None, **settings: Any) -> Iterator[Harness]:
    """An executor of ClientApps that is not started yet. Stops it, and checks the locking rule, at the end."""
    created = Harness(ExecutorSettings(**{"app": "clientapp", "preload": ("keras",), **settings}), app_folders)
    try:
        yield created
    finally:
        created.executor.stop()
        created.tasks.break_down(RuntimeError("the test is over"))
    assert created.violations == [], "called while holding the executor's lock"
    assert created.failures.empty()
