import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bouquet.executor.linux import (
    describe_exit,
    describe_returncode,
    name_process,
    oom_kills,
    volunteer_for_oom_kill,
)


def wait_status(code: str) -> int:
    child = subprocess.Popen([sys.executable, "-P", "-c", code])
    return os.waitpid(child.pid, 0)[1]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import os; os._exit(3)", "exited with code 3"),
        ("import os; os.kill(os.getpid(), 11)", "was killed by signal 11 (SIGSEGV)"),
        (
            "import os; os.kill(os.getpid(), 4)",
            "was killed by signal 4 (SIGILL): this CPU probably lacks AVX, which TensorFlow needs",
        ),
    ],
)
def test_an_exit_is_described_by_its_cause(code: str, text: str) -> None:
    assert describe_exit(wait_status(code), oom=False) == text


COUNTERS = {
    "cgroup v1": ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"),
    "cgroup v2": ("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill {}\noom_group_kill 0\n"),
}


@pytest.fixture(params=COUNTERS)
def count_oom_kills(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], None]:
    """A container's cgroup files, and a function that sets the kernel's count."""
    name, content = COUNTERS[request.param]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    monkeypatch.setattr("bouquet.executor.linux._CGROUP", tmp_path)
    monkeypatch.setenv("BOUQUET_MEMORY_LIMIT", "SUPERLINK_MEMORY=4g")

    def count(kills: int) -> None:
        (tmp_path / name).write_text(content.format(kills))

    count(0)
    return count


def test_a_process_killed_for_memory_names_the_setting_its_value_and_a_higher_one(
    count_oom_kills: Callable[[int], None],
) -> None:
    before = oom_kills()
    count_oom_kills(1)
    for describe in (describe_exit, describe_returncode):
        status = signal.SIGKILL if describe is describe_exit else -signal.SIGKILL
        assert describe(status, oom_kills() > before) == (
            "was killed by signal 9 (SIGKILL): out of memory. The container's memory limit is SUPERLINK_MEMORY=4g: "
            "set a higher one, for example SUPERLINK_MEMORY=8g"
        )


@pytest.mark.usefixtures("count_oom_kills")
def test_a_process_killed_by_a_person_is_not_said_to_be_out_of_memory() -> None:
    assert describe_exit(signal.SIGKILL, oom=False) == "was killed by signal 9 (SIGKILL)"


def test_without_the_kernels_count_the_setting_is_named_with_a_question_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bouquet.executor.linux._CGROUP", tmp_path)
    monkeypatch.setenv("BOUQUET_MEMORY_LIMIT", "SUPERNODE_MEMORY=1536m")
    text = describe_exit(signal.SIGKILL, oom=False)
    assert "out of memory? " in text
    assert text.endswith("SUPERNODE_MEMORY=1536m: set a higher one, for example SUPERNODE_MEMORY=3072m")


def test_in_a_process_fleet_no_limit_is_named(
    count_oom_kills: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOUQUET_MEMORY_LIMIT")
    count_oom_kills(5)  # of other processes
    assert oom_kills() == 0
    text = describe_exit(signal.SIGKILL, oom=False)
    assert "out of memory? Processes of a process fleet have no limit but the machine's memory" in text


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("raise SystemExit(3)", "exited with code 3"),
        ("import os; os.kill(os.getpid(), 15)", "was killed by signal 15 (SIGTERM)"),
    ],
)
def test_a_return_code_is_described_like_a_wait_status(code: str, text: str) -> None:
    assert describe_returncode(subprocess.run([sys.executable, "-P", "-c", code]).returncode) == text


def test_a_process_dies_with_its_parent_however_that_dies(tmp_path: Path) -> None:
    child = (
        "import os, time; from bouquet.executor.linux import die_with_parent; die_with_parent(os.getppid());"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-P', '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-P", "-c", parent])
    deadline = time.monotonic() + 20
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pid = int((tmp_path / "pid").read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


def test_a_worker_is_what_the_kernel_kills_first() -> None:
    pid = os.fork()
    if not pid:
        volunteer_for_oom_kill()
        name_process("a-name-that-is-too-long")
        right = Path("/proc/self/oom_score_adj").read_text().strip() == "800"
        right = right and Path("/proc/self/comm").read_text().strip() == "a-name-that-is-"
        os._exit(0 if right else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_threads_use_the_memory_that_other_threads_have_freed() -> None:
    code = """
import ctypes, sys, threading
from pathlib import Path
from bouquet.executor.linux import share_freed_memory
if sys.argv[1] == "share":
    share_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
CHUNK = 5 << 20
libc.free(libc.malloc(CHUNK))  # from now on, the C library keeps blocks of this size
end = threading.Event()
def work(done):
    chunks = [libc.malloc(CHUNK) for _ in range(5)]
    for chunk in chunks:
        libc.memset(chunk, 1, CHUNK)
    for chunk in chunks[:-1]:  # the last one keeps the heap from shrinking
        libc.free(chunk)
    done.set()
    end.wait()
for _ in range(8):
    done = threading.Event()
    threading.Thread(target=work, args=(done,)).start()
    done.wait()
print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20)
end.set()
"""
    command = [sys.executable, "-P", "-c", code]
    own, shared = (
        int(subprocess.run([*command, how], capture_output=True, text=True, check=True).stdout)
        for how in ("own", "share")
    )
    assert own - shared > 60  # of 8 x 25 MiB, of which 8 x 20 MiB were freed
