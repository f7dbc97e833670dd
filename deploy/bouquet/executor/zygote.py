"""The zygote: a process that has imported the framework and forks a worker from itself for each request.

A fork takes milliseconds and shares the memory of the imported modules. It is safe as long as the zygote starts nothing
that a child would not inherit: it opens no gRPC channel, runs no TensorFlow operation and has one Python thread
(docs/decisions/0003-warm-executor.md has the measurements).

Messages from the executor:

    {"worker": 3, "work": {...}}    fork worker 3, with its end of a channel as the file descriptor
    {"worker": 3, "signal": 15}     send worker 3 a signal; SIGKILL goes to its process group

Messages to the executor:

    {"ready": 4711}                                 the modules are imported
    {"exited": 3, "status": 256, "oom": false}      worker 3 has ended, with this wait status
    {"exited": 3, "error": "could not be started: ..."}
"""

import argparse
import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from bouquet.executor import hub_access
from bouquet.executor.channel import Channel
from bouquet.executor.linux import die_with_parent, name_process, oom_kills
from bouquet.executor.preload import Preload
from bouquet.executor.process_end import (
    exit_like_python,
    flush_files_at_exit,
    leave_files_of_zygote,
    omit_leak_reports,
)
from bouquet.executor.worker_state import KILL_GRACE_SECONDS
from bouquet.runtime.termination import EXIT_CODE, Terminated

REAP_POLL_SECONDS = 0.02
"""Poll interval for the end of the workers when the zygote ends."""


def main() -> None:
    """Run the zygote: `python -P -m bouquet.executor.zygote`, started by `Executor`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--preload", nargs="*", default=[])
    options = parser.parse_args()
    die_with_parent(options.parent)
    name_process("bouquet-zygote")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, and that ends this process
    executor = Channel.from_descriptor(options.channel)
    Zygote(executor, preload(options.preload)).run()


def preload(modules: list[str]) -> Preload:
    """Import the workers' own code and the given modules."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # has no effect once TensorFlow is imported
    from bouquet.executor import worker  # noqa: F401, PLC0415  imports Flower, so only after die_with_parent()

    hub_access.watch()
    omit_leak_reports()
    preloaded = Preload()
    preloaded.load(modules)
    gc.collect()
    gc.freeze()  # a collection in a child would write to every page, and so copy it
    return preloaded


@dataclass(frozen=True)
class _Child:
    """A worker that runs.

    Attributes:
        number: The executor's number for it.
        oom_kills: How many processes of this container had been killed for memory when it started.
    """

    number: int
    oom_kills: int


class Zygote:
    """Forks workers, reaps them, and reports how they ended."""

    def __init__(self, executor: Channel, preloaded: Preload) -> None:
        self._executor = executor
        self._preloaded = preloaded
        self._children: dict[int, _Child] = {}  # by process id
        self._wakeup, self._wakeup_write = socket.socketpair()
        for end in (self._wakeup, self._wakeup_write):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the default would not write to the wake-up socket
        signal.set_wakeup_fd(self._wakeup_write.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve the executor until it closes the channel, then end all workers."""
        self._executor.send({"ready": os.getpid()})
        with selectors.DefaultSelector() as selector:
            selector.register(self._executor, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._wakeup in ready:
                    with suppress(BlockingIOError):
                        self._wakeup.recv(4096)
                    self._reap()
                if self._executor in ready:
                    request, descriptor = self._executor.receive()
                    if request is None:
                        break
                    if descriptor is not None:
                        self._fork(request, descriptor)
                    else:
                        self._send_signal(request["worker"], request["signal"])
        self._end_all()

    def _fork(self, request: dict[str, Any], descriptor: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        child = _Child(request["worker"], oom_kills())
        try:
            pid = _fork_quietly()
        except OSError as error:
            os.close(descriptor)
            self._executor.send({"exited": child.number, "error": f"could not be started: {error}"})
            return
        if pid:
            os.close(descriptor)
            self._children[pid] = child
        else:
            self._become_worker(request["work"], descriptor)

    def _become_worker(self, work_arguments: dict[str, Any], descriptor: int) -> NoReturn:
        """In the forked process: work, then exit. Raises `SystemExit`, so nothing goes on in the zygote's loop."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._executor.close()
            self._wakeup.close()
            self._wakeup_write.close()
            leave_files_of_zygote()
            flush_files_at_exit()
            from bouquet.executor.worker import work  # noqa: PLC0415

            code = work(Channel.from_descriptor(descriptor), self._preloaded, **work_arguments)
        except Terminated:
            code = EXIT_CODE
        except BaseException:  # SystemExit too: an app's is none of the worker
            traceback.print_exc()
        exit_like_python(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if (child := self._children.pop(pid, None)) is not None:
                _kill_group(pid)
                oom = oom_kills() > child.oom_kills
                self._executor.send({"exited": child.number, "status": status, "oom": oom})

    def _send_signal(self, number: int, signal_number: int) -> None:
        for pid, child in self._children.items():
            if child.number == number:
                with suppress(OSError):
                    (os.killpg if signal_number == signal.SIGKILL else os.kill)(pid, signal_number)

    def _end_all(self) -> None:
        for pid in self._children:
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + KILL_GRACE_SECONDS
        while self._children and time.monotonic() < deadline:
            with suppress(ChildProcessError):
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if self._children.pop(pid, None) is not None:
                    _kill_group(pid)
                    continue
            time.sleep(REAP_POLL_SECONDS)
        for pid in self._children:
            _kill_group(pid)


def _fork_quietly() -> int:
    """Fork as `os.fork` does. Python 3.12 warns of threads, also of native ones such as OpenBLAS's, which are safe."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        return os.fork()


def _kill_group(pid: int) -> None:
    """Kill what a worker's app has started, and the worker if it is still there."""
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
