"""Readiness through a named pipe: a service holds the pipe open while it is ready, and Docker's probe waits on it.

Docker starts a probe only after the previous one has ended. So this probe waits: it ends as soon as readiness changes,
and otherwise after an hour, and its exit code is the current state. The kernel wakes it: the end of file on the pipe
means that the service has withdrawn or died, for any reason. A short probe every few seconds in eleven containers
would cost more CPU than the rest of an idle fleet (figures in docs/decisions/0006-holding-probe.md).

    probe   python3 -I -S deploy/bouquet/contract/readiness.py      exit code 0: ready, 1: not ready
    service Readiness(directory).declare(), .withdraw()

This module imports almost nothing, because most of a probe's cost is the start of Python.
"""

import os
import select
import sys

PIPE = "ready"
HOLD_SECONDS = 3600.0
"""Longest wait of one probe; `healthcheck.timeout` in docker-compose.yml must be at least twice as long."""


class Readiness:
    """The service's end of the pipe.

    Holding the pipe open means ready. So the process whose death must end readiness calls `declare`. Python closes the
    descriptor in programs that it starts; a plain fork keeps it open.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        os.makedirs(directory, exist_ok=True)  # noqa: PTH103  pathlib is a third of this module's import time
        self._path = _pipe(directory)
        self._held: int | None = None

    def declare(self) -> None:
        """Become ready: a waiting probe ends at once."""
        if self._held is None:
            self._held = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
            os.write(self._held, b".")

    def withdraw(self) -> None:
        """Become unready until the next `declare`: a waiting probe ends at once."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def is_ready(directory: str | os.PathLike[str]) -> bool:
    """Return whether the service is ready, without waiting; a waiting probe still sees the last change."""
    end = os.open(_pipe(directory), os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(end, select.POLLIN)
        events = poll.poll(0)
        # Unread bytes without POLLHUP: the service has declared itself ready and still holds the pipe open.
        return events[0][1] == select.POLLIN if events else _drain(end)
    finally:
        os.close(end)


def probe(directory: str | os.PathLike[str], hold_seconds: float = HOLD_SECONDS) -> bool:
    """Wait until readiness changes, at most `hold_seconds`; return whether the service is ready."""
    end = os.open(_pipe(directory), os.O_RDONLY | os.O_NONBLOCK)
    try:
        select.select([end], [], [], hold_seconds)
        return _drain(end)
    finally:
        os.close(end)


def _pipe(directory: str | os.PathLike[str]) -> str:
    path = os.path.join(directory, PIPE)  # noqa: PTH118
    # The first caller creates the pipe, which may be a probe.
    if not os.path.exists(path):  # noqa: PTH110
        try:  # noqa: SIM105  contextlib would double this module's import time
            os.mkfifo(path, 0o600)
        except FileExistsError:
            pass
    return path


def _drain(end: int) -> bool:
    """Read what is in the pipe; return whether a process holds its other end open."""
    try:
        while os.read(end, 64):
            pass
    except BlockingIOError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(0 if probe(os.environ.get("BOUQUET_RUN_DIR") or "/run/bouquet") else 1)
