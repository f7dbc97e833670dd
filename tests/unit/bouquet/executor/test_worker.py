"""When a ClientApp worker has served enough. Flower's part is played by the test."""

import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bouquet.executor import memory_growth, worker
from bouquet.executor.channel import Channel
from bouquet.executor.worker import Bounds
from bouquet.flower.client_app_process import Served
from bouquet.flower.task_queue import RuntimeApi
from bouquet.runtime.log import LOGGER

Serve = Callable[..., list[bool]]


@pytest.fixture
def events() -> list[str]:
    """What the worker does with each message."""
    return []


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, events: list[str]) -> Serve:
    """Have a worker serve four messages at most; return what it says of itself after each: whether it is usable."""

    class Share:
        def apply(self) -> None:
            events.append("GPU")

    class Process:
        def __init__(self, api: RuntimeApi, **callbacks: Any) -> None:
            self.callbacks = callbacks

        def serve(self, token: str) -> Served:
            self.callbacks["on_pulled"](b"")
            with self.callbacks["loading"](Path()):
                events.append("import")
            return Served(token != "unusable", "train", "SuperNode 11 (partition-id 2)")

        def close(self) -> None:
            pass

    monkeypatch.setattr(worker, "ClientAppProcess", Process)

    def serve(bounds: Bounds, *tokens: str) -> list[bool]:
        ours, theirs = Channel.pair()
        for token in tokens or ("t",) * 4:
            ours.send({"token": token})
        ours.end_sending()
        assert worker._serve_clientapp(theirs, RuntimeApi(""), lambda _: nullcontext(), Share(), bounds, 7) == 0  # type: ignore[arg-type]
        return [message["done"] for message in ours.drain() if "done" in message]

    return serve


def test_the_share_of_a_gpu_is_applied_before_and_after_the_import_of_the_app(serve: Serve, events: list[str]) -> None:
    serve(Bounds(growth_mib=0), "t")
    assert events == ["GPU", "import", "GPU"]


@pytest.mark.parametrize("folder", ["apps/7", None])
def test_a_worker_works_in_the_folder_of_its_run(folder: str | None, tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from bouquet.executor import worker
from bouquet.executor.preload import Preload

worker._serve_clientapp = lambda *arguments: print(Path.cwd())
worker.work(
    None, Preload(), app="clientapp", run_id=7, parent=os.getppid(), api={{"address": ""}}, report=True, bounds={{}},
    folder={folder!r},
)
"""
    for _ in range(2):  # the second worker of a run finds the folder
        printed = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True)
        assert Path(printed.strip()) == tmp_path / (folder or "")


def test_a_worker_serves_all_messages_of_its_run(serve: Serve) -> None:
    assert serve(Bounds(growth_mib=0)) == [True] * 4


@pytest.mark.parametrize(("messages", "done"), [(1, [False]), (3, [True, True, False])])
def test_a_worker_serves_no_more_messages_than_the_setting_says(messages: int, done: list[bool], serve: Serve) -> None:
    assert serve(Bounds(messages=messages, growth_mib=0)) == done


def test_a_worker_whose_app_cannot_go_on_serves_no_more(serve: Serve) -> None:
    assert serve(Bounds(growth_mib=0), "t", "unusable", "t") == [True, False]


def test_a_worker_that_has_grown_serves_no_more_and_names_node_memory_and_setting(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = [300, 360, 420, 480]
    monkeypatch.setattr(memory_growth, "anonymous_mib", lambda: sizes.pop(0))
    monkeypatch.setattr(LOGGER, "propagate", True)
    with caplog.at_level(logging.WARNING):
        assert serve(Bounds(growth_mib=100)) == [True, True, False]
    assert caplog.messages == [
        "[RUN 7] SuperNode 11 (partition-id 2): the ClientApp process has grown from 300 to 420 MiB in 3 messages, by "
        "more than EXECUTOR_GROWTH=100 (MiB). The next message gets a new process"
    ]
