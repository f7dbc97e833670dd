"""Follows a run to its end: its log as it arrives, across restarts of the SuperLink."""

import time
from collections.abc import Callable

from bouquet.flower.control_client import ControlApiError, ControlClient, KnownRun
from bouquet.polling import poll_until

CALL_TIMEOUT = 10.0
"""Seconds that the SuperLink may take to answer one call."""
RECONNECT_TIMEOUT = 120.0
"""Seconds that a SuperLink which does not answer may take to answer again."""
RECONNECT_POLL_SECONDS = 1.0
STREAM_SECONDS = 60.0
"""How long one log stream lasts before the next one replaces it: a connection may be dead without a sign."""


def follow_run(client: ControlClient, run_id: int, write: Callable[[str], object]) -> KnownRun:
    """Write a run's log to its end and return how the run ended.

    The stream is interrupted when the SuperLink restarts. It then continues after the last line that was written.

    Args:
        client: A connection to the SuperLink.
        run_id: The run.
        write: Takes each part of the log.

    Raises:
        ControlApiError: The SuperLink does not answer for 120 s.
    """
    written_until, deadline = 0.0, time.monotonic() + RECONNECT_TIMEOUT
    while True:
        complete, progress = _write_log(client, run_id, written_until, write)
        if progress > written_until or complete:
            written_until, deadline = progress, time.monotonic() + RECONNECT_TIMEOUT
        run = _find_when_reachable(client, run_id, deadline - time.monotonic())
        ended = run.status.startswith("finished")
        if ended and (complete or time.monotonic() > deadline):
            return run
        if not complete and not ended:
            write(f"bouquet: run {run_id}: log stream interrupted; the run continues\n")
            time.sleep(RECONNECT_POLL_SECONDS)


def _write_log(client: ControlClient, run_id: int, after: float, write: Callable[[str], object]) -> tuple[bool, float]:
    """Write what is new in a run's log; return whether that was all of it, and the time of the last line."""
    while True:
        try:
            for text, time_of_last_line in client.stream_log(run_id, after, STREAM_SECONDS):
                write(text)
                after = max(after, time_of_last_line)
            return True, after
        except ControlApiError as error:
            if error.code != "DEADLINE_EXCEEDED":
                return False, after


def _find_when_reachable(client: ControlClient, run_id: int, timeout_seconds: float) -> KnownRun:
    def ask() -> KnownRun | None:
        try:
            return client.find_run(run_id, CALL_TIMEOUT)
        except ControlApiError:
            return None

    return poll_until(ask, timeout_seconds, RECONNECT_POLL_SECONDS) or client.find_run(run_id, CALL_TIMEOUT)
