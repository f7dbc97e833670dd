"""A real zygote whose workers do what the test tells them: the module with Flower is replaced by a small one."""

import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bouquet.executor.channel import Channel
from bouquet.executor.zygote import _fork_quietly

PATIENCE_SECONDS = 10.0
PROJECT = Path(__file__).parents[4]
APPS = PROJECT / "tests" / "apps" / "process_ends"
ENDS = {f"{kind}-worker" for kind in ("atexit", "thread", "pool-1", "pool-2", "text", "gzip", "log", "destroyed")}
"""The files that `leave` leaves to the end of a process."""
ZYGOTE = """
import atexit, multiprocessing, os, pathlib, signal, subprocess, sys, time, types
sys.path[:0] = [APPS, LIBRARY]
from bouquet.executor import process_end
from bouquet.runtime.termination import exit_on_sigterm
kept = []
process_end.EXIT_SECONDS = 0.2

def write_late(path):
    time.sleep(0.2)
    pathlib.Path(path).write_text("late")

def work(executor, preload, action):
    os.setpgid(0, 0)
    executor.send({"pid": os.getpid()})
    if action == "wait":
        executor.receive()
        return 3
    if action.startswith("leave "):
        exit_on_sigterm()
        from process_ends.endings import leave
        leave(pathlib.Path(action[6:]), "worker")
        executor.send({"left": True})
        executor.receive()
        return 3
    if action.startswith("child "):
        multiprocessing.get_context("fork").Process(target=write_late, args=(action[6:],)).start()
        return 0
    if action.startswith("open "):
        kept.append(open(action[5:], "w"))
        kept[0].write("buffered")
        return 0
    if action == "hang":
        atexit.register(time.sleep, 60)
        return 0
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
    def __init__(self, *preload: str, library: Path = PROJECT) -> None:
        self.channel, theirs = Channel.pair()
        code = f"APPS, LIBRARY = {str(APPS)!r}, {str(library)!r}\n{ZYGOTE}"
        command = [sys.executable, "-P", "-c", code, "--channel", str(theirs.fileno()), "--parent", str(os.getpid())]
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


@contextmanager
def started(*preload: str, library: Path = PROJECT) -> Iterator[RealZygote]:
    zygote = RealZygote(*preload, library=library)
    try:
        assert receive(zygote.channel) == {"ready": zygote.process.pid}
        yield zygote
    finally:
        zygote.channel.close()
        zygote.process.kill()
        zygote.process.wait()
        if zygote.process.stderr:
            zygote.process.stderr.close()


@pytest.fixture
def zygote() -> Iterator[RealZygote]:
    with started("json", "no_such_module") as zygote:
        yield zygote


def left(folder: Path) -> set[str]:
    """The files that have contents, and the folders."""
    return {path.name for path in folder.iterdir() if path.stat().st_size}


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


def test_a_fork_does_not_warn_of_native_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork_of_python_3_12() -> int:
        text = "This process (pid=7) is multi-threaded, use of fork() may lead to deadlocks in the child."
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return 7

    monkeypatch.setattr(os, "fork", fork_of_python_3_12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _fork_quietly() == 7


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


# -- The end of a worker


def test_a_worker_ends_as_a_python_process_ends(zygote: RealZygote, tmp_path: Path) -> None:
    worker, _ = zygote.fork(1, f"leave {tmp_path}")
    assert receive(worker) == {"left": True}
    assert "text-worker" not in left(tmp_path), "it is buffered"
    worker.end_sending()
    assert receive(zygote.channel) == {"exited": 1, "status": 3 << 8, "oom": False}
    assert left(tmp_path) == ENDS


@pytest.mark.parametrize(("module", "reports"), [("triton", 0), ("other", 2)])
def test_triton_does_not_list_the_modules_of_the_zygote_as_leaks(module: str, reports: int, tmp_path: Path) -> None:
    # `malloc_stats` takes the place of its report: native code that writes to stderr when the interpreter has ended.
    code = "import ctypes\nctypes.pythonapi.Py_AtExit(ctypes.CDLL(None).malloc_stats)\n"
    (tmp_path / f"{module}.py").write_text(code)
    with started(module, library=tmp_path) as zygote:
        worker, _ = zygote.fork(1, "wait")
        worker.end_sending()
        assert receive(zygote.channel) == {"exited": 1, "status": 3 << 8, "oom": False}
        zygote.channel.end_sending()
        _, log = zygote.process.communicate(timeout=PATIENCE_SECONDS)
    assert log.count("Total (incl. mmap):") == reports


def test_sigterm_ends_a_worker_as_a_python_process_ends(zygote: RealZygote, tmp_path: Path) -> None:
    worker, _ = zygote.fork(1, f"leave {tmp_path}")
    assert receive(worker) == {"left": True}
    zygote.channel.send({"worker": 1, "signal": int(signal.SIGTERM)})
    assert receive(zygote.channel) == {"exited": 1, "status": 143 << 8, "oom": False}
    assert left(tmp_path) == ENDS


def test_the_end_of_the_zygote_ends_its_workers_as_python_processes_end(zygote: RealZygote, tmp_path: Path) -> None:
    for number in range(2):
        worker, _ = zygote.fork(number, f"leave {tmp_path / str(number)}")
        assert receive(worker) == {"left": True}
    zygote.channel.end_sending()
    assert zygote.process.wait(PATIENCE_SECONDS) == 0
    assert [left(tmp_path / str(number)) for number in range(2)] == [ENDS, ENDS]


def test_a_worker_waits_for_the_processes_that_multiprocessing_has_started(zygote: RealZygote, tmp_path: Path) -> None:
    zygote.fork(1, f"child {tmp_path / 'late'}")
    assert receive(zygote.channel) == {"exited": 1, "status": 0, "oom": False}
    assert (tmp_path / "late").read_text() == "late"


def test_a_file_that_only_a_preloaded_module_refers_to_is_flushed(zygote: RealZygote, tmp_path: Path) -> None:
    zygote.fork(1, f"open {tmp_path / 'file'}")
    assert receive(zygote.channel) == {"exited": 1, "status": 0, "oom": False}
    assert (tmp_path / "file").read_text() == "buffered"


def test_the_log_shows_where_an_exit_handler_hangs(zygote: RealZygote) -> None:
    zygote.fork(1, "hang")
    time.sleep(0.5)
    zygote.channel.send({"worker": 1, "signal": int(signal.SIGKILL)})
    assert receive(zygote.channel) == {"exited": 1, "status": signal.SIGKILL, "oom": False}
    zygote.channel.end_sending()
    _, log = zygote.process.communicate(timeout=PATIENCE_SECONDS)
    assert "Timeout (0:00:00.200000)!" in log
    assert "exit_like_python" in log or "most recent call first" in log


def test_a_worker_runs_exit_handlers_of_preloaded_modules_and_leaves_their_files_to_the_zygote(tmp_path: Path) -> None:
    (tmp_path / "removed").mkdir()
    (tmp_path / "preloaded.py").write_text(
        "import atexit, pathlib, shutil, tempfile\n"
        "folder = pathlib.Path(__file__).parent\n"
        "scratch = tempfile.TemporaryDirectory(prefix='scratch', dir=folder)\n"
        "atexit.register(shutil.rmtree, folder / 'removed')\n"
        "atexit.register(lambda: print('handler', file=open(folder / 'handlers', 'a')))\n"
    )
    with started("preloaded", library=tmp_path) as zygote:
        worker, _ = zygote.fork(1, "wait")
        worker.end_sending()
        assert receive(zygote.channel) == {"exited": 1, "status": 3 << 8, "oom": False}
        assert (tmp_path / "handlers").read_text() == "handler\n"
        assert (tmp_path / "removed").exists()
        assert len(list(tmp_path.glob("scratch*"))) == 1
        zygote.channel.end_sending()
        assert zygote.process.wait(PATIENCE_SECONDS) == 0
    assert (tmp_path / "handlers").read_text() == "handler\n" * 2
    assert not (tmp_path / "removed").exists()
    assert not list(tmp_path.glob("scratch*"))
