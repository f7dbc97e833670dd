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
from bouquet.contract.readiness import Readiness, hangs, is_ready

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
    assert not hangs(tmp_path)


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


def test_a_probe_after_one_that_was_killed_reports_again_at_once(tmp_path: Path) -> None:
    """Docker ends the probe at `docker pause`, and takes the container for unhealthy."""
    Readiness(tmp_path).declare()
    probe.probe(tmp_path, LONG)
    command = [sys.executable, "-I", "-S", probe.__file__]
    held = subprocess.Popen(command, env={"BOUQUET_RUN_DIR": str(tmp_path)})
    while (tmp_path / probe.REPORTED).exists():
        time.sleep(0.01)
    held.terminate()
    held.wait()
    start = time.monotonic()
    assert probe.probe(tmp_path, LONG)
    assert took(start) < SOON


def test_a_probe_that_holds_ends_when_the_service_announces_itself(tmp_path: Path) -> None:
    readiness = Readiness(tmp_path)
    readiness.declare()
    probe.probe(tmp_path, LONG)
    shortly(readiness.announce)
    start = time.monotonic()
    assert probe.probe(tmp_path, LONG)
    assert took(start) < SOON


def test_the_holds_after_a_change_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "FIRST_HOLD_SECONDS", 0.1)
    readiness = Readiness(tmp_path)
    readiness.declare()
    holds = []
    for _ in range(4):
        start = time.monotonic()
        assert probe.probe(tmp_path)
        holds.append(took(start))
    assert holds[1] >= 0.1
    assert holds[2] >= 0.4
    assert holds[3] >= 1.6


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service is silent after half a second, and hangs after another half."""
    monkeypatch.setattr(probe, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(probe, "CONFIRM_SECONDS", 0.5)
    monkeypatch.setattr(probe, "PULSE_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_service_that_hangs_is_not_ready_until_it_moves_again(tmp_path: Path) -> None:
    readiness = Readiness(tmp_path)
    readiness.declare()
    probe.probe(tmp_path, LONG)
    start = time.monotonic()
    assert not probe.probe(tmp_path, LONG)
    assert took(start) < SOON
    assert not is_ready(tmp_path)
    assert hangs(tmp_path)
    assert not probe.probe(tmp_path, hold_seconds=1.0)
    shortly(readiness.pulse)
    start = time.monotonic()
    assert probe.probe(tmp_path, LONG)
    assert took(start) < SOON
    assert not hangs(tmp_path)


@pytest.mark.usefixtures("impatient")
def test_a_service_that_pulses_stays_ready(tmp_path: Path) -> None:
    readiness = Readiness(tmp_path)
    readiness.declare()
    probe.probe(tmp_path, LONG)

    def beat() -> None:
        for _ in range(25):
            readiness.pulse()
            time.sleep(0.1)

    beats = threading.Thread(target=beat)
    beats.start()
    start = time.monotonic()
    assert probe.probe(tmp_path, hold_seconds=2.0)
    assert took(start) >= 2.0
    beats.join()


@pytest.mark.usefixtures("impatient")
def test_a_service_that_was_frozen_may_pulse_before_it_counts_as_hanging(tmp_path: Path) -> None:
    readiness = Readiness(tmp_path)
    readiness.declare()
    probe.probe(tmp_path, LONG)
    time.sleep(0.6)
    shortly(readiness.pulse)
    assert probe.probe(tmp_path, hold_seconds=0.3)


def test_pulses_do_not_depend_on_the_wall_clock(tmp_path: Path) -> None:
    Readiness(tmp_path).declare()
    assert abs((tmp_path / probe.PIPE).stat().st_mtime - time.monotonic()) < SOON


def test_a_longest_hold_of_zero_answers_at_once_and_takes_nothing_from_dockers_probe(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", probe.__file__, "0"]

    def answer() -> int:
        return subprocess.run(command, env={"BOUQUET_RUN_DIR": str(tmp_path)}, timeout=SOON).returncode

    assert answer() == 1
    Readiness(tmp_path).declare()
    assert [answer(), answer()] == [0, 0]
    start = time.monotonic()
    assert probe.probe(tmp_path, LONG)
    assert took(start) < SOON


def test_the_live_probe_fails_only_for_a_service_that_hangs(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", probe.__file__, "live"]

    def answer() -> int:
        return subprocess.run(command, env={"BOUQUET_RUN_DIR": str(tmp_path)}, timeout=SOON).returncode

    assert answer() == 0, "a service that is starting is alive"
    readiness = Readiness(tmp_path)
    readiness.declare()
    assert answer() == 0
    long_ago = time.monotonic_ns() - int(2e9 * probe.SILENT_SECONDS)
    os.utime(tmp_path / probe.PIPE, ns=(long_ago, long_ago))
    assert answer() == 1
    readiness.withdraw()
    assert answer() == 0, "a SuperNode that waits for its SuperLink is alive"
