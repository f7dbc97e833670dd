"""Workers end the way a Python process ends, and are replaced when an app needs that: fleets of processes."""

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import APPS, CONNECTION, Bouquet, StartFleet, printed_json, run_id, wait_until

NODES = 2
GROWTH_MIB = 40
KINDS = ("atexit", "thread", "pool-1", "pool-2", "text", "gzip", "log", "destroyed")
MEMBERS = ("server", "client-0", "client-1")
ENDS = {f"{kind}-{member}": kind for kind in KINDS for member in MEMBERS}
"""What the ends of three processes write: the content of each file."""
SHADOW = """
import wave

print("the app's wave" if wave.MINE else "", flush=True)
"""


@pytest.fixture(scope="module")
def warm(start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """Two nodes that preload a module that an app shadows, and a library that reads its environment."""
    settings = {
        "SUPERNODES": str(NODES),
        "EXECUTOR_PRELOAD": "wave,huggingface_hub.constants",
        "EXECUTOR_GROWTH": str(GROWTH_MIB),
    }
    with start_fleet("processes", tmp_path_factory.mktemp("warm"), **settings) as fleet:
        yield fleet


def run(fleet: Bouquet, app: str | Path = "process_ends", **config: Any) -> list[dict[str, Any]]:
    """Run the app to its end; return what it printed as JSON."""
    return printed_json("process_ends", fleet.submit(app, "--stream", **{"nodes": NODES, **config}))


def left(folder: Path) -> dict[str, str]:
    """The files that processes have written, with their contents, and the folders that they have not removed."""
    found = {}
    for path in sorted(folder.iterdir()):
        try:
            found[path.name] = "a folder" if path.is_dir() else read(path)
        except (OSError, EOFError) as error:  # it is being written
            found[path.name] = str(error)
    return found


def read(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.name.startswith("gzip") else data).decode().strip()


def assert_leaves(folder: Path, ends: dict[str, str]) -> None:
    wait_until(lambda: left(folder) == ends, "the ends of processes", 20, lambda: left(folder))


def workers(fleet: Bouquet) -> dict[int, str]:
    """Process ids and names of the processes that serve apps."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.name().startswith(("clientapp-", "serverapp-")) and (
                process.environ().get("BOUQUET_HOME") == fleet.environment["BOUQUET_HOME"]
            ):
                found[process.pid] = process.name()
        except psutil.Error:
            pass
    return found


def test_the_end_of_a_run_leaves_the_same_files_with_both_executors(
    warm: Bouquet, start_fleet: StartFleet, tmp_path: Path
) -> None:
    run(warm, folder=str(tmp_path / "warm"))
    assert_leaves(tmp_path / "warm", ENDS)
    with start_fleet("processes", tmp_path / "fleet", SUPERNODES="1", EXECUTOR="stock") as stock:
        run(stock, nodes=1, folder=str(tmp_path / "stock"))
        assert_leaves(tmp_path / "stock", {name: end for name, end in ENDS.items() if "client-1" not in name})


def test_stopping_a_run_in_the_middle_of_a_message_runs_exit_handlers(warm: Bouquet, tmp_path: Path) -> None:
    started = run_id(warm.submit("process_ends", nodes=NODES, folder=str(tmp_path), rounds=100, pause=3.0))
    wait_until(lambda: len(left(tmp_path)) >= len(MEMBERS), "the run did not begin", 30)
    wait_until(lambda: len(workers(warm)) == NODES + 1, "the processes of the run", 10)
    warm.flwr("stop", started, CONNECTION)
    assert_leaves(tmp_path, ENDS)
    wait_until(lambda: not workers(warm), "processes outlived their run", 10)


def test_an_exit_handler_that_hangs_is_cut_off_and_the_log_says_where(warm: Bouquet) -> None:
    run(warm, hang=True)
    wait_until(lambda: not workers(warm), "processes with exit handlers that hang", 15)
    log = warm.process_log("supernode-0")
    assert "The ClientApp process is killed: its exit handlers and threads took longer than 5 s" in log
    assert "Timeout (0:00:05)!" in log, "where it hung"


def test_a_process_that_grows_is_replaced_between_two_messages_and_the_run_goes_on(warm: Bouquet) -> None:
    replies = run(warm, rounds=8, grow=15)
    assert len(replies) == 8 * NODES
    assert not any("error" in reply for reply in replies)
    assert [reply["calls"] for reply in replies if reply["round"] == 5] == [1] * NODES, "4 messages grow by 45 MiB"
    assert len({reply["pid"] for reply in replies}) == 2 * NODES
    log = warm.process_log("supernode-1")
    assert "(partition-id 1): the ClientApp process has grown from " in log
    assert f"by more than EXECUTOR_GROWTH={GROWTH_MIB} (MiB)" in log


def test_a_module_of_the_app_wins_and_a_variable_that_it_sets_too_late_is_reported(
    warm: Bouquet, tmp_path: Path
) -> None:
    app = shutil.copytree(APPS / "process_ends", tmp_path / "shadow")
    (app / "wave.py").write_text("MINE = True\n")
    client = app / "process_ends" / "client_app.py"
    client.write_text(client.read_text() + SHADOW)
    assert len(run(warm, app)) == NODES
    log = warm.process_log("supernode-0")
    assert "the app's wave" in log
    assert "The app sets HF_HOME too late: huggingface_hub read it before the app was loaded." in log


def test_an_app_that_may_run_only_once_per_process_is_told_the_setting_and_works_with_it(
    warm: Bouquet, start_fleet: StartFleet, tmp_path: Path
) -> None:
    failed = [reply["error"] for reply in run(warm, rounds=3, once=True) if "error" in reply]
    assert len(failed) == 2 * NODES
    assert all("context has already been set" in error and "set EXECUTOR_MESSAGES=1" in error for error in failed)
    settings = {"SUPERNODES": "1", "EXECUTOR_PRELOAD": "json", "EXECUTOR_MESSAGES": "1"}
    with start_fleet("processes", tmp_path, **settings) as fleet:
        replies = run(fleet, nodes=1, rounds=3, once=True)
        assert [reply.get("calls") for reply in replies] == [1] * 3
        assert len({reply["pid"] for reply in replies}) == 3


def test_taking_the_fleet_down_in_the_middle_of_a_message_runs_exit_handlers(warm: Bouquet, tmp_path: Path) -> None:
    warm.submit("process_ends", nodes=NODES, folder=str(tmp_path), rounds=100, pause=3.0)
    wait_until(lambda: len(left(tmp_path)) >= len(MEMBERS), "the run did not begin", 30)
    wait_until(lambda: len(workers(warm)) == NODES + 1, "the processes of the run", 10)
    assert warm("down").returncode == 0
    assert left(tmp_path) == ENDS
