"""The zygote: a process that has imported the framework, and forks a worker from itself whenever it is asked to.

A fork takes milliseconds and shares the imported modules' memory. It is safe as long as nothing here starts what a
child would not inherit: the zygote opens no gRPC channel, runs no TensorFlow operation and has one Python thread
(docs/decisions/0003-warm-executor.md has the measurements).
"""

import argparse
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

from bouquet.executor.channel import Channel
from bouquet.executor.linux import die_with_parent, name_process, oom_kills

_GRACE = 1.0  # seconds between SIGTERM and SIGKILL at the end


def main() -> None:
    """Run the zygote: `python -m bouquet.executor.zygote`, started by `Executor`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--preload", nargs="*", default=[])
    options = parser.parse_args()
    die_with_parent(options.parent)
    name_process("bouquet-zygote")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started us
    executor = Channel.of(options.channel)
    preload(options.preload)
    Zygote(executor).run()


def preload(modules: list[str]) -> None:
    """Import what workers need: their own code, and the modules named by the user as far as there are."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # too late once an app sets it
    from bouquet.executor import worker  # noqa: F401, PLC0415 # pulls in Flower: not before the parent is watched

    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # an app may do without it
            print(f"bouquet: could not preload {module}: {error}", file=sys.stderr, flush=True)
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page


class Zygote:
    """Forks workers, reaps them, and says how they ended."""

    def __init__(self, executor: Channel) -> None:
        self._executor = executor
        self._workers: dict[int, int] = {}  # process id -> the executor's number for it
        self._wakeup, wakeup = socket.socketpair()
        for end in (self._wakeup, wakeup):
            end.setblocking(False)
        self._wakeup_write = wakeup
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)

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
                        self._kill(request["worker"], request["signal"])
        self._end_all()

    def _fork(self, request: dict[str, Any], descriptor: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(descriptor)
            self._executor.send({"exited": request["worker"], "error": f"could not be started: {error}"})
            return
        if pid:
            os.close(descriptor)
            self._workers[pid] = request["worker"]
            return
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._executor.close()
            self._wakeup.close()
            self._wakeup_write.close()
            from bouquet.executor.worker import work  # noqa: PLC0415

            code = work(Channel.of(descriptor), **request["work"])
        except BaseException:  # whatever it is, this is not the zygote's stack any more
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if (worker := self._workers.pop(pid, None)) is not None:
                with suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)  # what the app started and left behind
                self._executor.send({"exited": worker, "status": status, "oom_kills": oom_kills()})

    def _kill(self, worker: int, number: int) -> None:
        for pid, known in self._workers.items():
            if known == worker:
                with suppress(OSError):
                    (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)

    def _end_all(self) -> None:
        for pid in self._workers:
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        while self._workers and time.monotonic() < deadline:
            with suppress(ChildProcessError):
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if self._workers.pop(pid, None) is not None:
                    with suppress(OSError):
                        os.killpg(pid, signal.SIGKILL)
                    continue
            time.sleep(0.02)
        for pid in self._workers:
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
