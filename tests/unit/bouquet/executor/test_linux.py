import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bouquet.executor.linux import describe_exit, describe_returncode, name_process, volunteer_for_oom_kill


def wait_status(code: str) -> int:
    child = subprocess.Popen([sys.executable, "-P", "-c", code])
    return os.waitpid(child.pid, 0)[1]


@pytest.mark.parametrize(
    ("code", "oom", "text"),
    [
        ("import os; os._exit(3)", False, "exited with code 3"),
        ("import os; os.kill(os.getpid(), 11)", False, "was killed by signal 11 (SIGSEGV)"),
        (
            "import os; os.kill(os.getpid(), 4)",
            False,
            "was killed by signal 4 (SIGILL): this CPU probably lacks AVX, which TensorFlow needs",
        ),
        ("import os; os.kill(os.getpid(), 9)", False, "was killed by signal 9 (SIGKILL): out of memory?"),
        (
            "import os; os.kill(os.getpid(), 9)",
            True,
            "was killed by signal 9 (SIGKILL): out of memory, the container's memory limit was hit",
        ),
    ],
)
def test_an_exit_is_described_by_its_cause(code: str, oom: bool, text: str) -> None:
    assert describe_exit(wait_status(code), oom) == text


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
