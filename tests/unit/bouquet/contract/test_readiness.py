"""The holding probe: it waits, the kernel tells it of the service's death, and it is cheap to start."""

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
"""Hold in seconds that no test waits for."""
SOON = 5.0
"""Seconds within which a probe that need not wait ends, even on a busy machine."""


def shortly(act: Callable[[], None]) -> None:
    threading.Timer(0.2, act).start()


def took(start: float) -> float:
    return time.monotonic() - start


def test_a_service_that_never_declared_is_not_ready(tmp_path: Path) -> None:
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


def test_a_probe_that_holds_ends_when_readiness_is_withdrawn(tmp_path: Path) -> None:
    readiness = Readiness(tmp_path)
    readiness.declare()
    probe.probe(tmp_path, LONG)
    shortly(readiness.withdraw)
    start = time.monotonic()
    assert not probe.probe(tmp_path, LONG)
    assert took(start) < SOON
    assert not is_ready(tmp_path)


def test_readiness_can_be_declared_again_after_it_was_withdrawn(tmp_path: Path) -> None:
    readiness = Readiness(tmp_path)
    readiness.declare()
    readiness.withdraw()
    readiness.declare()
    assert is_ready(tmp_path)
    assert probe.probe(tmp_path, LONG)


def test_is_ready_does_not_consume_the_change_that_dockers_probe_waits_for(tmp_path: Path) -> None:
    Readiness(tmp_path).declare()
    assert is_ready(tmp_path)
    assert is_ready(tmp_path)
    start = time.monotonic()
    assert probe.probe(tmp_path, LONG)
    assert took(start) < SOON


@pytest.fixture
def service(tmp_path: Path) -> subprocess.Popen[bytes]:
    """A process that is ready and has a child process."""
    code = (
        "import subprocess, sys, time; from bouquet.contract.readiness import Readiness; "
        "readiness = Readiness(sys.argv[1]); "
        "readiness.declare(); subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)']); time.sleep(20)"
    )
    started = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], start_new_session=True)
    assert probe.probe(tmp_path, LONG)
    return started


def test_a_killed_service_is_not_ready_even_if_its_children_live(
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


def test_run_as_a_script_its_exit_code_is_the_readiness(tmp_path: Path) -> None:
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
