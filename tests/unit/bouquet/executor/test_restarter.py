import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bouquet.executor.restarter import Restarter

# Runs a Restarter in a process of its own, because it handles signals. The test gives the child's code.
PARENT = """
import json, sys
from bouquet.executor.restarter import Restarter
child = sys.argv[1]
restarter = Restarter("child", lambda channel, first: [sys.executable, "-P", "-c", child, str(channel), str(first)],
                      lambda message: print(json.dumps(message), flush=True), lambda: print("down", flush=True))
try:
    restarter.run()
finally:
    restarter.stop()
    print("stopped", flush=True)
"""
CHILD = """
import os, sys, time
from bouquet.executor.channel import Channel
channel = Channel.from_descriptor(int(sys.argv[1]))
channel.send({"serving": os.getpid(), "first": sys.argv[2]})
time.sleep(60)
"""


class Restarted:
    """A Restarter in its process, and what it reports."""

    def __init__(self, child: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", PARENT, child], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def serving(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.line())
        return message

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_child_that_dies_is_restarted_and_told_that_it_is_not_the_first() -> None:
    restarted = Restarted(CHILD)
    first = restarted.serving()
    os.kill(first["serving"], signal.SIGKILL)
    assert restarted.line() == "down"
    second = restarted.serving()
    assert (first["first"], second["first"]) == ("True", "False")
    assert first["serving"] != second["serving"]
    assert restarted.end() == 0
    assert restarted.line() == "stopped"
    assert not is_running(second["serving"])
    assert restarted.process.stderr is not None
    line = restarted.process.stderr.read()
    assert line.startswith("child was killed by signal 9 (SIGKILL): out of memory? ")
    assert line.endswith(": restarting it in 1 s\n")


def test_a_child_that_never_served_is_not_started_again_and_its_exit_code_is_passed_on() -> None:
    restarted = Restarted("raise SystemExit(3)")
    assert restarted.line() == "stopped"
    assert restarted.process.wait(10) == 3


def test_the_pause_grows_with_each_death_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            raise SystemExit

    monkeypatch.setattr("bouquet.executor.restarter.time.sleep", sleep)
    child = """
import sys
from bouquet.executor.channel import Channel
Channel.from_descriptor(int(sys.argv[1])).send({"serving": 1})
"""
    restarter = Restarter(
        "child", lambda channel, first: [sys.executable, "-P", "-c", child, str(channel)], lambda _: None, lambda: None
    )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(SystemExit):
            restarter.run()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
