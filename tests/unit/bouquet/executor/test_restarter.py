import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bouquet.executor.restarter import Restarter

# Runs a keeper in a process of its own, as it takes the signals: of children that say what they are told to.
PARENT = """
import json, sys
from bouquet.executor.restarter import Restarter
child = sys.argv[1]
kept = Restarter("child", lambda channel, first: [sys.executable, "-c", child, str(channel), str(first)],
              lambda message: print(json.dumps(message), flush=True), lambda: print("down", flush=True))
try:
    kept.run()
finally:
    kept.stop()
    print("stopped", flush=True)
"""
CHILD = """
import os, sys, time
from bouquet.executor.channel import Channel
channel = Channel.of(int(sys.argv[1]))
channel.send({"serving": os.getpid(), "first": sys.argv[2]})
time.sleep(60)
"""


class Kept:
    """A keeper, and what it heard."""

    def __init__(self, child: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", PARENT, child], stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def serving(self) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads(self.line())
        return heard

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_child_that_dies_is_started_anew_and_told_that_it_is_not_the_first() -> None:
    kept = Kept(CHILD)
    first = kept.serving()
    os.kill(first["serving"], signal.SIGKILL)
    assert kept.line() == "down"
    second = kept.serving()
    assert (first["first"], second["first"]) == ("True", "False")
    assert first["serving"] != second["serving"]
    assert kept.end() == 0
    assert kept.line() == "stopped"
    assert not is_running(second["serving"])


def test_a_child_that_never_served_is_not_started_again_and_its_exit_code_is_passed_on() -> None:
    kept = Kept("raise SystemExit(3)")
    assert kept.line() == "stopped"
    assert kept.process.wait(10) == 3


def test_the_pause_grows_with_each_death_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            raise SystemExit

    monkeypatch.setattr("bouquet.executor.restarter.time.sleep", sleep)
    child = (
        "import sys; from bouquet.executor.channel import Channel; Channel.of(int(sys.argv[1])).send({'serving': 1})"
    )
    kept = Restarter(
        "child", lambda channel, first: [sys.executable, "-c", child, str(channel)], lambda _: None, lambda: None
    )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(SystemExit):
            kept.run()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
