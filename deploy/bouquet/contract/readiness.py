"""Readiness through a named pipe: a service holds the pipe open while it is ready, and Docker's probe waits on it.

Docker starts a probe only after the previous one has ended. So this probe waits: it ends as soon as readiness changes,
and otherwise after an hour, and its exit code is the current state. The kernel wakes it: the end of file on the pipe
means that the service has withdrawn or died, for any reason. A short probe every few seconds in eleven containers
would cost more CPU than the rest of an idle fleet (figures in docs/decisions/0006-holding-probe.md).

A service that hangs still holds the pipe. So it also sets the pipe's time of modification every few seconds, and the
probe looks at it. That time is CLOCK_MONOTONIC, which nobody can set.

    probe   python3 -I -S deploy/bouquet/contract/readiness.py [LONGEST_HOLD]   exit code 0: ready, 1: not ready
            python3 -I -S deploy/bouquet/contract/readiness.py live             exit code 1: hangs, 0: does not
    service Readiness(directory).declare(), .pulse(), .withdraw()

With a LONGEST_HOLD of 0 the probe answers at once, for engines that call probes at intervals of their own. So does
`live`, for those that restart a container by another probe: a service that waits for its peer is not ready, but works.

This module imports almost nothing, because most of a probe's cost is the start of Python.
"""

import os
import select
import sys
import time

PIPE = "ready"
REPORTED = "reported"
HOLD_SECONDS = 3600.0
"""Longest wait of one probe; `healthcheck.timeout` in docker-compose.yml must be at least twice as long."""
FIRST_HOLD_SECONDS = 5.0
"""Wait of the first probe after a change; each following one waits `HOLD_FACTOR` times as long."""
HOLD_FACTOR = 4
PULSE_SECONDS = 5.0
"""Time between two pulses of a service, and between two looks of a probe at them."""
SILENT_SECONDS = 20.0
"""A service without a pulse for so long may hang. It does if a probe then sees none during `CONFIRM_SECONDS`."""
CONFIRM_SECONDS = 8.0
"""A service that was frozen together with its probe has time to pulse."""


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
            self.announce()

    def pulse(self) -> None:
        """Show that the service does not hang, at least every `PULSE_SECONDS` while it is ready."""
        if self._held is not None:
            now = time.monotonic_ns()
            os.utime(self._held, ns=(now, now))

    def announce(self) -> None:
        """Have the waiting probe end and report again, if the service is ready."""
        if self._held is not None:
            try:  # noqa: SIM105
                os.write(self._held, b".")
            except BlockingIOError:  # the pipe is full of announcements that no probe has read
                pass
            self.pulse()

    def withdraw(self) -> None:
        """Become unready until the next `declare`: a waiting probe ends at once."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def is_ready(directory: str | os.PathLike[str]) -> bool:
    """Return whether the service is ready, without waiting; a waiting probe still sees the last change."""
    return _look(directory) == (True, False)


def hangs(directory: str | os.PathLike[str]) -> bool:
    """Return whether the service has declared itself ready, but does not pulse."""
    return _look(directory) == (True, True)


def _look(directory: str | os.PathLike[str]) -> tuple[bool, bool]:
    """Return whether the service holds the pipe open, and whether it has not pulsed for `SILENT_SECONDS`."""
    end = os.open(_pipe(directory), os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(end, select.POLLIN)
        events = poll.poll(0)
        # Unread bytes without POLLHUP: the service has declared itself ready and still holds the pipe open.
        is_held = events[0][1] == select.POLLIN if events else _drain(end)[0]
        return is_held, _is_silent(end)
    finally:
        os.close(end)


def probe(directory: str | os.PathLike[str], hold_seconds: float = HOLD_SECONDS) -> bool:
    """Wait until there is something to report to Docker, and return whether the service is ready.

    Docker's own state is 'starting' or 'unhealthy' where this probe has not yet reported that the service is ready.
    That is so after `docker pause` too: it ends the probe, and Docker then takes the container for unhealthy. So the
    file `REPORTED` is there only between two probes of a ready service. A probe that is killed leaves no such file.

    Args:
        directory: The service's folder.
        hold_seconds: Longest wait while nothing changes.
    """
    reported = os.path.join(directory, REPORTED)  # noqa: PTH118
    hold = _take(reported)
    end = os.open(_pipe(directory), os.O_RDONLY | os.O_NONBLOCK)
    try:
        state, happened = _wait(end, hold is not None, hold_seconds if hold is None else min(hold, hold_seconds))
    finally:
        os.close(end)
    if state:
        # A short pause between two probes goes unnoticed: so the first probes after a change do not wait long.
        _write(reported, FIRST_HOLD_SECONDS if hold is None or happened else min(HOLD_FACTOR * hold, HOLD_SECONDS))
    return state


def _wait(end: int, was_ready: bool, hold_seconds: float) -> tuple[bool, bool]:
    """Wait until readiness changes, the service announces itself, or time is up.

    Returns:
        Whether the service is ready, and whether something happened.
    """
    poll = select.poll()
    poll.register(end, select.POLLIN)
    happened = False
    waited = silent = 0.0
    while True:
        is_held, announced = _drain(end)
        happened = happened or announced
        if not (is_held and _is_silent(end)):
            silent = 0.0
            state = is_held
        elif silent >= CONFIRM_SECONDS:
            state = False
        else:  # it may hang, or it was frozen and is about to pulse
            state = None
        if state is not None and (happened or state != was_ready or waited >= hold_seconds):
            return state, happened
        seconds = CONFIRM_SECONDS / 4 if state is None else min(PULSE_SECONDS, hold_seconds - waited)
        if poll.poll(seconds * 1000):
            happened = True
        else:  # what counts is how often it has waited, not the clock: this process may have been frozen as well
            waited += seconds
            silent += seconds


def _is_silent(end: int) -> bool:
    """Return whether the service has not pulsed for `SILENT_SECONDS`."""
    return time.monotonic() - os.fstat(end).st_mtime > SILENT_SECONDS


def _pipe(directory: str | os.PathLike[str]) -> str:
    path = os.path.join(directory, PIPE)  # noqa: PTH118
    # The first caller creates the pipe, which may be a probe.
    if not os.path.exists(path):  # noqa: PTH110
        try:  # noqa: SIM105  contextlib would double this module's import time
            os.mkfifo(path, 0o600)
        except FileExistsError:
            pass
    return path


def _drain(end: int) -> tuple[bool, bool]:
    """Read what is in the pipe; return whether a process holds its other end open, and whether something was there."""
    announced = False
    try:
        while os.read(end, 64):
            announced = True
    except BlockingIOError:
        return True, announced
    return False, announced


def _take(path: str) -> float | None:
    """Return the number in a file, and remove the file; None if there is no such file."""
    try:
        with open(path) as file:  # noqa: PTH123
            number = float(file.read())
        os.unlink(path)  # noqa: PTH108
    except (FileNotFoundError, ValueError):
        return None
    return number


def _write(path: str, number: float) -> None:
    with open(path, "w") as file:  # noqa: PTH123
        file.write(str(number))


def _main() -> bool:
    directory = os.environ.get("BOUQUET_RUN_DIR") or "/run/bouquet"
    if sys.argv[1:] == ["live"]:
        return not hangs(directory)
    longest_hold = float(sys.argv[1]) if len(sys.argv) > 1 else HOLD_SECONDS
    return probe(directory, longest_hold) if longest_hold else is_ready(directory)


if __name__ == "__main__":
    sys.exit(0 if _main() else 1)
