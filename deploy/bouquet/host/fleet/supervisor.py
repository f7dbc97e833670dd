"""Keep a set of child processes running: start, restart with a growing pause, stop them all.

The local stand-in for Docker's `restart: unless-stopped`. It waits for signals, not by polling; its
children die with it (`PR_SET_PDEATHSIG`), so that nothing is ever left behind. On SIGUSR1 it reads its plan again,
starts what is new in it and stops what is no longer there. Run as `python -m bouquet.host.fleet.supervisor <fleet.json>`.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

RELOAD = signal.SIGUSR1
SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, RELOAD)
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before the first restart in a row, doubled up to the longest."""
STEADY = 60.0
"""Seconds after which a child counts as having started well."""
GRACE = 8.0
"""Seconds between SIGTERM and SIGKILL."""
PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """A process to keep running; `environment` is added to the supervisor's own."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: str
    pause: float = field(default=FIRST_PAUSE, repr=False, compare=False)
    started: float = field(default=0.0, compare=False)
    due: float = field(default=0.0, compare=False)
    process: subprocess.Popen[bytes] | None = field(default=None, compare=False)

    def start(self) -> None:
        """Start the process; its output is appended to `log`."""
        self.started = time.monotonic()
        with Path(self.log).open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_in_child,  # noqa: PLW1509  this process has one thread
            )

    def ended(self) -> bool:
        """Whether the process was started and has ended."""
        return self.process is not None and self.process.poll() is not None

    def plan_restart(self) -> None:
        """Set when the ended process starts again: later each time that it did not last."""
        now = time.monotonic()
        self.pause = FIRST_PAUSE if now - self.started > STEADY else min(self.pause * 2, LONGEST_PAUSE)
        self.due = now + self.pause
        self.process = None


def _in_child() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def supervise(children: list[Child], first_is_ready: Callable[[], bool], reload: Callable[[], list[Child]]) -> None:
    """Run `children` until SIGTERM or SIGINT; the first alone until `first_is_ready`. `reload` has the plan anew."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        children[0].start()
        while not first_is_ready():
            if _stop_asked(0.1, children[:1], lambda: _follow_plan(children, reload())):
                return
        while not _stop_asked(_seconds_to_next(children), children, lambda: _follow_plan(children, reload())):
            pass
    finally:
        _stop(children)


def _seconds_to_next(children: list[Child]) -> float:
    waiting = [child.due for child in children if child.process is None]
    return max(0.0, min(waiting) - time.monotonic()) if waiting else LONGEST_PAUSE


def _stop_asked(seconds: float, children: list[Child], on_reload: Callable[[], None]) -> bool:
    received = signal.sigtimedwait(SIGNALS, seconds)
    if received is not None and received.si_signo == RELOAD:
        on_reload()
    elif received is not None and received.si_signo != signal.SIGCHLD:
        return True
    for child in children:
        if child.ended():
            child.plan_restart()
        elif child.process is None and child.due <= time.monotonic():
            child.start()
    return False


def _follow_plan(children: list[Child], plan: list[Child]) -> None:
    """Make `children` those of the plan; those that are in both run on."""
    gone = [child for child in children if child not in plan]
    children[:] = [child for child in children if child in plan] + [child for child in plan if child not in children]
    _stop(gone)


def _stop(children: list[Child]) -> None:
    running = [child.process for child in children if child.process is not None and not child.ended()]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def write_plan(path: Path, children: list[Child]) -> None:
    """Write the children for `read_plan`, complete or not at all."""
    fields = ("name", "command", "environment", "log")
    plan = [{key: value for key, value in asdict(child).items() if key in fields} for child in children]
    fresh = path.with_name(f"{path.name}.new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(plan, indent=2), encoding="utf-8")
    fresh.replace(path)


def read_plan(path: Path) -> list[Child]:
    """Return the children of a plan."""
    return [Child(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def main() -> None:
    """Supervise the children of the plan that the command line names."""
    from bouquet.contract.readiness import is_ready  # noqa: PLC0415  kept out of those who import this module for its classes

    plan = Path(sys.argv[1])
    children = read_plan(plan)
    run_directory = Path(children[0].environment["BOUQUET_RUN_DIR"])
    supervise(children, lambda: is_ready(run_directory), lambda: read_plan(plan))


if __name__ == "__main__":
    main()
