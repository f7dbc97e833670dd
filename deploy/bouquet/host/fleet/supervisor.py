"""Keeps a set of child processes running: starts them, restarts them after a pause, and stops them all.

It replaces Docker's `restart: unless-stopped` for local processes. It waits for signals instead of polling. Its
children die with it (`PR_SET_PDEATHSIG`), so no process is left behind. On SIGUSR1 it reads its plan again, starts the
children that are new in it and stops those that are missing.

Run as `python -m bouquet.host.fleet.supervisor <plan.json>`.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bouquet.contract.readiness import is_ready
from bouquet.files import write_atomically
from bouquet.restart_policy import RestartPolicy

RELOAD = signal.SIGUSR1
SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, RELOAD)
READY_POLL_SECONDS = 0.1
"""Poll interval until the first child is ready."""
IDLE_SECONDS = 30.0
"""Longest wait for a signal while no restart is due."""
STOP_TIMEOUT = 8.0
"""Seconds between SIGTERM and SIGKILL."""
PLAN_FIELDS = ("name", "command", "environment", "log")
PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """A process to keep running.

    Attributes:
        name: The member's name.
        command: The program and its arguments.
        environment: Variables on top of the supervisor's own environment.
        log: The file that the output is appended to.
        policy: The pause before each restart.
        due: When an ended process starts again, in seconds of `time.monotonic`.
        process: The running process; None before the first start and while a restart is due.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    log: str
    policy: RestartPolicy = field(default_factory=RestartPolicy, repr=False, compare=False)
    due: float = field(default=0.0, compare=False)
    process: subprocess.Popen[bytes] | None = field(default=None, compare=False)

    def start(self) -> None:
        """Start the process."""
        self.policy.note_start()
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
        """Set when the ended process starts again."""
        self.due = time.monotonic() + self.policy.next_pause()
        self.process = None


def _in_child() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def supervise(children: list[Child], first_is_ready: Callable[[], bool], reload: Callable[[], list[Child]]) -> None:
    """Run children until SIGTERM, SIGINT or SIGHUP.

    Args:
        children: The processes. The first one starts alone; the others start when it is ready.
        first_is_ready: Whether the first child is ready.
        reload: Reads the plan again.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        children[0].start()
        while not first_is_ready():
            if _stop_requested(READY_POLL_SECONDS, children[:1], lambda: _apply_plan(children, reload())):
                return
        while not _stop_requested(_seconds_to_next(children), children, lambda: _apply_plan(children, reload())):
            pass
    finally:
        _stop(children)


def _seconds_to_next(children: list[Child]) -> float:
    waiting = [child.due for child in children if child.process is None]
    return max(0.0, min(waiting) - time.monotonic()) if waiting else IDLE_SECONDS


def _stop_requested(seconds: float, children: list[Child], on_reload: Callable[[], None]) -> bool:
    """Wait for a signal, then restart children that are due; return whether the signal asks to stop."""
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


def _apply_plan(children: list[Child], plan: list[Child]) -> None:
    """Make `children` equal to the plan: stop those that are not in it, keep those that are, add the new ones."""
    removed = [child for child in children if child not in plan]
    children[:] = [child for child in children if child in plan] + [child for child in plan if child not in children]
    _stop(removed)


def _stop(children: list[Child]) -> None:
    running = [child.process for child in children if child.process is not None and not child.ended()]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + STOP_TIMEOUT
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def write_plan(path: Path, children: list[Child]) -> None:
    """Write a plan that `read_plan` reads. Only its owner may read it."""
    plan = [{name: getattr(child, name) for name in PLAN_FIELDS} for child in children]
    write_atomically(path, json.dumps(plan, indent=2).encode(), 0o600)


def read_plan(path: Path) -> list[Child]:
    """Return the children of a plan."""
    return [Child(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def main() -> None:
    """Supervise the children of the plan that the command line names."""
    plan = Path(sys.argv[1])
    children = read_plan(plan)
    run_directory = Path(children[0].environment["BOUQUET_RUN_DIR"])
    supervise(children, lambda: is_ready(run_directory), lambda: read_plan(plan))


if __name__ == "__main__":
    main()
