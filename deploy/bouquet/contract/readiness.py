"""Readiness through a named pipe: a service holds it open while it is ready, and Docker's probe waits on it.

Docker probes again only when the probe before has ended. So this one waits: it ends at once when readiness comes or
goes, and otherwise after a while, with what is so. The kernel does the waiting and the telling: the pipe's end of
file is a service that withdrew or died, whichever way. A probe every few seconds in eleven containers would cost
more than an idle fleet does (docs/decisions/0006-holding-probe.md has the figures).

    probe   python3 -I -S deploy/bouquet/contract/readiness.py      exit code 0: ready, 1: not ready
    service Readiness(directory).declare(), .withdraw()

Imports next to nothing, as starting Python is what a probe costs.
"""

import os
import select
import sys

PIPE = "ready"
HOLD_SECONDS = 3600.0
"""Longest wait of one probe; `healthcheck.timeout` in docker-compose.yml must be well above."""


class Readiness:
    """The service's end of the pipe.

    Ready is whoever holds the pipe open, so `declare` belongs into the process whose death must count. Python closes
    the descriptor in programs that it starts; a plain fork keeps it.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        os.makedirs(directory, exist_ok=True)  # noqa: PTH103  pathlib is a third of this module's import time
        self._path = _pipe(directory)
        self._held: int | None = None

    def declare(self) -> None:
        """Be ready from now on: a waiting probe ends at once."""
        if self._held is None:
            self._held = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
            os.write(self._held, b".")

    def withdraw(self) -> None:
        """Be not ready from now on, until declared again: a waiting probe ends at once."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def is_ready(directory: str | os.PathLike[str]) -> bool:
    """Say whether a service is ready, without waiting and without taking the news from Docker's probe."""
    end = os.open(_pipe(directory), os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(end, select.POLLIN)
        events = poll.poll(0)
        # News that nobody has read yet proves a service as long as the pipe has no end.
        return events[0][1] == select.POLLIN if events else _drain(end)
    finally:
        os.close(end)


def probe(directory: str | os.PathLike[str], hold_seconds: float = HOLD_SECONDS) -> bool:
    """Wait until readiness comes or goes, at most `hold_seconds`; return whether the service is ready."""
    end = os.open(_pipe(directory), os.O_RDONLY | os.O_NONBLOCK)
    try:
        select.select([end], [], [], hold_seconds)
        return _drain(end)
    finally:
        os.close(end)


def _pipe(directory: str | os.PathLike[str]) -> str:
    path = os.path.join(directory, PIPE)  # noqa: PTH118
    # Whoever comes first makes it; a probe may well be first.
    if not os.path.exists(path):  # noqa: PTH110
        try:  # noqa: SIM105  contextlib would double this module's import time
            os.mkfifo(path, 0o600)
        except FileExistsError:
            pass
    return path


def _drain(end: int) -> bool:
    """Read what is there; return whether anybody holds the other end."""
    try:
        while os.read(end, 64):
            pass
    except BlockingIOError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(0 if probe(os.environ.get("BOUQUET_RUN_DIR") or "/run/bouquet") else 1)
