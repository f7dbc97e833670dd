"""The holding probe: it waits, it learns of a death from the kernel, and it costs next to nothing to start."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bouquet.contract import readiness as probe
from bouquet.contract.readiness import Readiness, is_ready

LONG = 30.0
"""Seconds of hold that no test waits for."""
SOON = 5.0
"""Seconds within which a probe that need not wait has ended, on a busy machine too."""


def shortly(act: Callable[[], None]) -> None:
    threading.Timer(0.2, act).start()


def took(start: float) -> float:
    return time.monotonic() - start


def test_not_ready_where_nobody_ever_declared(tmp_path: Path) -> None:
    assert not probe.probe(tmp_path, hold_seconds=0.1)
    assert not is_ready(tmp_path)


def test_the_first_probe_after_readiness_ends_at_once(tmp_path: Path) -> None:
    Readiness(tmp_path).declare()
    start = time.monotonic()
    assert probe.probe(tmp_path, LONG)
    assert took(start) < SOON


def test_a_probe_that_waits_ends_when_readiness_comes(tmp_path: Path) -> None:
    shortly(Readiness(tmp_path).declare)
    start = time.monotonic()
    assert probe.probe(tmp_path, LONG)
    assert took(start) < SOON


def test_later_probes_hold_while_nothing_changes(tmp_path: Path) -> None:
    Readiness(tmp_path).declare()
    probe.probe(tmp_path, LONG)
    start = time.monotonic()
    assert probe.probe(tmp_path, hold_seconds=0.5)
    assert took(start) >= 0.5


def test_a_probe_that_holds_ends_when_readiness_goes(tmp_path: Path) -> None:
    readiness = Readiness(tmp_path)
    readiness.declare()
    probe.probe(tmp_path, LONG)
    shortly(readiness.withdraw)
    start = time.monotonic()
    assert not probe.probe(tmp_path, LONG)
    assert took(start) < SOON
    assert not is_ready(tmp_path)


def test_readiness_comes_again_after_it_went(tmp_path: Path) -> None:
    readiness = Readiness(tmp_path)
    readiness.declare()
    readiness.withdraw()
    readiness.declare()
    assert is_ready(tmp_path)
    assert probe.probe(tmp_path, LONG)


def test_asking_by_hand_leaves_the_news_to_dockers_probe(tmp_path: Path) -> None:
    Readiness(tmp_path).declare()
    assert is_ready(tmp_path)
    assert is_ready(tmp_path)
    start = time.monotonic()
    assert probe.probe(tmp_path, LONG)
    assert took(start) < SOON


@pytest.fixture
def service(tmp_path: Path) -> subprocess.Popen[bytes]:
    """A process that has declared itself ready, and has a child that it started."""
    code = (
        "import subprocess, sys, time; from bouquet.contract.readiness import Readiness; readiness = Readiness(sys.argv[1]); "
        "readiness.declare(); subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)']); time.sleep(20)"
    )
    started = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], start_new_session=True)
    assert probe.probe(tmp_path, LONG)
    return started


def test_a_killed_service_is_not_ready_though_its_children_live(
    tmp_path: Path, service: subprocess.Popen[bytes]
) -> None:
    try:
        shortly(service.kill)
        start = time.monotonic()
        assert not probe.probe(tmp_path, LONG)
        assert took(start) < SOON
    finally:
        os.killpg(service.pid, signal.SIGKILL)
        service.wait()


def test_as_docker_runs_it_the_exit_code_tells(tmp_path: Path) -> None:
    Readiness(tmp_path).declare()
    command = [sys.executable, "-I", "-S", probe.__file__]
    assert subprocess.run(command, env={"BOUQUET_RUN_DIR": str(tmp_path)}, timeout=LONG).returncode == 0


def test_it_imports_nothing_beyond_what_python_starts_with(tmp_path: Path) -> None:
    code = f"import sys; before = set(sys.modules); exec(open({probe.__file__!r}).read()); "
    code = code.replace("exec(", "__name__ = 'probe'; exec(")
    code += "print(*sorted(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) <= {
        "os",
        "select",
        "stat",
        "_stat",
        "posixpath",
        "os.path",
        "genericpath",
        "_collections_abc",
    }
