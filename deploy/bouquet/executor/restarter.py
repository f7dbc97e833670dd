"""Keep one child process running: start it, hear it, and start it anew when it dies."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from logging import WARNING
from typing import Any

from flwr.common.logger import log

from bouquet.executor.channel import Channel
from bouquet.executor.linux import describe_exit

STEADY = 60.0  # seconds after which a child counts as having lived
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before the second start in a row, doubled up to the longest
STOP_GRACE = 3.0  # seconds between SIGTERM and SIGKILL


class Restarter:
    """Keeps one child running, from the main thread.

    The child says `{"serving": true}` once it works. One that ends before the first ever did was given what cannot
    work, and is not started again.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int, bool], list[str]],
        hear: Callable[[dict[str, Any]], None],
        on_down: Callable[[], None],
    ) -> None:
        """`command` makes the command line, from the child's end of the channel and whether it is the first child.

        `hear` is called with each message of the child, `on_down` when it has died.
        """
        self._name = name
        self._command = command
        self._hear = hear
        self._on_down = on_down
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Keep the child running until SIGTERM or SIGINT; ends with `SystemExit`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
        first, served, pause = True, False, 0.0
        while True:
            started = time.monotonic()
            ours, theirs = Channel.pair()
            self._process = subprocess.Popen(
                self._command(theirs.fileno(), first), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
            theirs.close()
            first = False
            while (message := ours.receive()[0]) is not None:
                served = served or "serving" in message
                self._hear(message)
            ours.close()
            code = self._process.wait()
            if not served:
                sys.exit(code if code > 0 else 1)
            self._on_down()
            pause = 0.0 if time.monotonic() - started > STEADY else min(max(FIRST_PAUSE, pause * 2), LONGEST_PAUSE)
            how = describe_exit(-code if code < 0 else code << 8, oom=False)
            log(WARNING, "%s %s: starting it anew%s", self._name, how, f" in {pause:g} s" if pause else "")
            time.sleep(pause)

    def stop(self) -> None:
        """End the child: takes a few seconds at most."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _leave(number: int, frame: object) -> None:
    for other in (signal.SIGTERM, signal.SIGINT):  # once is enough
        signal.signal(other, signal.SIG_IGN)
    sys.exit(0)
