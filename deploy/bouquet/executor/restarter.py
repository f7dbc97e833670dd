"""Runs one child process, receives its messages, and restarts it when it ends."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from bouquet.executor.channel import Channel
from bouquet.executor.linux import describe_returncode, oom_kills
from bouquet.restart_policy import RestartPolicy
from bouquet.runtime.log import LOGGER

STOP_GRACE_SECONDS = 3.0
"""Time between SIGTERM and SIGKILL."""


class Restarter:
    """Keeps one child process running, from the main thread.

    The child sends `{"serving": true}` once it works. If it ends before it has ever done so, its arguments cannot work,
    and it is not restarted.

    Args:
        name: The child's name in log lines.
        command: Returns the command line. Its arguments are the file descriptor of the child's end of the channel, and
            whether this is the first start.
        on_message: Called with each message of the child.
        on_down: Called when the child has ended, before it is restarted.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int, bool], list[str]],
        on_message: Callable[[dict[str, Any]], None],
        on_down: Callable[[], None],
    ) -> None:
        self._name = name
        self._command = command
        self._on_message = on_message
        self._on_down = on_down
        self._policy = RestartPolicy()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Run the child, again and again, until SIGTERM or SIGINT.

        Raises:
            SystemExit: Always: with code 0 after a signal, with the child's code if it never served.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _exit_on_signal)
        first, served = True, False
        while True:
            killed_before = oom_kills()
            now_served, code = self._run_once(first)
            served = served or now_served
            if not served:
                sys.exit(code if code > 0 else 1)
            self._on_down()
            first = False
            pause = self._policy.next_pause()
            when = f" in {pause:g} s" if pause else ""
            LOGGER.warning(
                "%s %s: restarting it%s", self._name, describe_returncode(code, oom_kills() > killed_before), when
            )
            time.sleep(pause)

    def stop(self) -> None:
        """End the child: takes a few seconds at most."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _run_once(self, first: bool) -> tuple[bool, int]:
        """Run the child to its end and pass on its messages; return whether it has served, and its return code."""
        served = False
        ours, theirs = Channel.pair()
        self._policy.note_start()
        command = self._command(theirs.fileno(), first)
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        while (message := ours.receive()[0]) is not None:
            served = served or "serving" in message
            self._on_message(message)
        ours.close()
        return served, self._process.wait()


def _exit_on_signal(number: int, frame: object) -> None:
    for other in (signal.SIGTERM, signal.SIGINT):  # one signal is enough
        signal.signal(other, signal.SIG_IGN)
    sys.exit(0)
