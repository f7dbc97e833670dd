"""The supervisor: restarts children that end, stops them all, and leaves none behind when it is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bouquet.contract.readiness import Readiness
from bouquet.host.fleet.supervisor import RELOAD, Child, read_plan, write_plan

PROJECT = Path(__file__).parents[5]


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[str], list[int]]]]:
    """A supervisor of two children that append their pids to a file each; the first is ready."""
    run = tmp_path / "run"
    Readiness(run).declare()
    children = [
        Child(
            name=name,
            command=[
                sys.executable,
                "-c",
                f"import os, time; print(os.getpid(), file=open({str(tmp_path / name)!r}, 'a')); time.sleep(60)",
            ],
            environment={"BOUQUET_RUN_DIR": str(run)},
            log=str(tmp_path / f"{name}.log"),
        )
        for name in ("superlink", "supernode")
    ]
    write_plan(tmp_path / "plan.json", children)
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "bouquet.host.fleet.supervisor", str(tmp_path / "plan.json")], cwd=PROJECT
    )

    def pids(name: str) -> list[int]:
        path = tmp_path / name
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    wait_for(lambda: pids("superlink") and pids("supernode"))
    yield supervisor, pids
    supervisor.kill()
    supervisor.wait()


def test_a_child_that_ends_is_restarted(
    supervised: tuple["subprocess.Popen[bytes]", Callable[[str], list[int]]],
) -> None:
    _, pids = supervised
    os.kill(pids("supernode")[0], signal.SIGKILL)
    wait_for(lambda: len(pids("supernode")) == 2)
    assert alive(pids("supernode")[1])
    assert len(pids("superlink")) == 1


def test_a_short_life_delays_the_restart_and_a_plan_has_no_trace_of_it(tmp_path: Path) -> None:
    child = Child("node", [sys.executable, "-c", ""], {"BOUQUET_RUN_DIR": str(tmp_path)}, str(tmp_path / "log"))
    child.start()
    wait_for(child.ended)
    child.plan_restart()
    assert child.due - time.monotonic() == pytest.approx(1.0, abs=0.5)
    write_plan(tmp_path / "plan.json", [child])
    assert read_plan(tmp_path / "plan.json") == [child]
    assert (tmp_path / "plan.json").stat().st_mode & 0o777 == 0o600


def test_a_plan_that_is_read_again_starts_new_children_and_stops_removed_ones(
    supervised: tuple["subprocess.Popen[bytes]", Callable[[str], list[int]]], tmp_path: Path
) -> None:
    supervisor, pids = supervised
    superlink, supernode = read_plan(tmp_path / "plan.json")
    command = [*supernode.command[:2], supernode.command[2].replace("/supernode", "/another")]
    another = Child("another", command, supernode.environment, str(tmp_path / "another.log"))
    write_plan(tmp_path / "plan.json", [superlink, another])
    supervisor.send_signal(RELOAD)
    wait_for(lambda: pids("another") and not alive(pids("supernode")[0]))
    assert alive(pids("superlink")[0])
    assert (len(pids("superlink")), len(pids("supernode"))) == (1, 1)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_the_supervisor_ends(
    supervised: tuple["subprocess.Popen[bytes]", Callable[[str], list[int]]], how: signal.Signals
) -> None:
    supervisor, pids = supervised
    supervisor.send_signal(how)
    supervisor.wait(timeout=15)
    for name in ("superlink", "supernode"):
        wait_for(lambda name=name: not alive(pids(name)[0]))  # type: ignore[misc]
