"""A real zygote whose workers do what the test tells them: the module with Flower is replaced by a small one."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bouquet.executor.channel import Channel

PATIENCE_SECONDS = 10.0
ZYGOTE = """
import os, signal, subprocess, sys, time, types

def work(executor, preload, action):
    os.setpgid(0, 0)
    executor.send({"pid": os.getpid()})
    if action == "wait":
        executor.receive()
        return 3
    if action == "raise":
        raise ValueError("asked to raise")
    if action == "ignore SIGTERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        executor.send({"child": subprocess.Popen(["sleep", "20"], stderr=subprocess.DEVNULL).pid})
        time.sleep(20)

worker = types.ModuleType("bouquet.executor.worker")
worker.work = work
sys.modules["bouquet.executor.worker"] = worker
from bouquet.executor.zygote import main
main()
"""


def receive(channel: Channel) -> dict[str, Any] | None:
    assert select.select([channel], [], [], PATIENCE_SECONDS)[0], "no message arrived"
    return channel.receive()[0]


class RealZygote:
    def __init__(self, *preload: str) -> None:
        self.channel, theirs = Channel.pair()
        command = [sys.executable, "-P", "-c", ZYGOTE, "--channel", str(theirs.fileno()), "--parent", str(os.getpid())]
        self.process = subprocess.Popen(
            [*command, "--preload", *preload], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True
        )
        theirs.close()

    def fork(self, number: int, action: str) -> tuple[Channel, int]:
        """Have a worker forked; return the channel to it and its process id."""
        ours, theirs = Channel.pair()
        self.channel.send({"worker": number, "work": {"action": action}}, theirs.fileno())
        theirs.close()
        message = receive(ours)
        assert message is not None
        return ours, message["pid"]


@pytest.fixture
def zygote() -> Iterator[RealZygote]:
    started = RealZygote("json", "no_such_module")
    try:
        assert receive(started.channel) == {"ready": started.process.pid}
        yield started
    finally:
        started.channel.close()
        started.process.kill()
        started.process.wait()
        if started.process.stderr:
            started.process.stderr.close()


def assert_ends(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Path(f"/proc/{pid}").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def test_workers_are_forked_on_request_and_their_exits_are_reported(zygote: RealZygote) -> None:
    first, first_pid = zygote.fork(1, "wait")
    second, second_pid = zygote.fork(2, "wait")
    assert first_pid != second_pid
    second.end_sending()
    assert receive(zygote.channel) == {"exited": 2, "status": 3 << 8, "oom": False}
    first.end_sending()
    assert receive(zygote.channel) == {"exited": 1, "status": 3 << 8, "oom": False}


def test_a_worker_that_raises_exits_with_code_1_and_its_traceback_is_in_the_log(zygote: RealZygote) -> None:
    zygote.fork(1, "raise")
    assert receive(zygote.channel) == {"exited": 1, "status": 1 << 8, "oom": False}
    zygote.channel.end_sending()
    _, log = zygote.process.communicate(timeout=PATIENCE_SECONDS)
    assert "ValueError: asked to raise" in log


def test_a_module_that_cannot_be_preloaded_is_reported(zygote: RealZygote) -> None:
    zygote.channel.end_sending()
    _, log = zygote.process.communicate(timeout=PATIENCE_SECONDS)
    assert log == "bouquet: could not preload no_such_module: No module named 'no_such_module'\n"


def test_a_signal_reaches_its_worker_only_and_a_kill_ends_what_the_app_has_started(zygote: RealZygote) -> None:
    waiting, _ = zygote.fork(1, "wait")
    worker, pid = zygote.fork(2, "ignore SIGTERM")
    child = receive(worker)
    assert child is not None
    zygote.channel.send({"worker": 1, "signal": int(signal.SIGTERM)})
    assert receive(zygote.channel) == {"exited": 1, "status": signal.SIGTERM, "oom": False}
    zygote.channel.send({"worker": 2, "signal": int(signal.SIGKILL)})
    assert receive(zygote.channel) == {"exited": 2, "status": signal.SIGKILL, "oom": False}
    assert_ends(pid)
    assert_ends(child["child"])
    assert receive(waiting) is None


def test_the_end_of_its_channel_ends_the_zygote_and_all_workers(zygote: RealZygote) -> None:
    waiting, willing = zygote.fork(1, "wait")
    worker, stubborn = zygote.fork(2, "ignore SIGTERM")
    child = receive(worker)
    assert child is not None
    zygote.channel.end_sending()
    assert zygote.process.wait(PATIENCE_SECONDS) == 0
    for pid in (willing, stubborn, child["child"]):
        assert_ends(pid)
    assert receive(waiting) is None
