"""Following a run to its end."""

from collections.abc import Iterator
from typing import cast

import pytest

from bouquet.flower import follow_run
from bouquet.flower.control_client import ControlApiError, ControlClient, KnownRun
from bouquet.flower.follow_run import follow_run as follow

RUNNING = KnownRun(7, "running", "", 0.0)
COMPLETED = KnownRun(7, "finished:completed", "", 0.0)


class Control:
    """Gives log lines, each stream ending with an error or not; then the states of the run, the last one for ever."""

    def __init__(self, streams: list[tuple[list[str], str]], states: list[KnownRun | None]) -> None:
        self._streams, self._states = streams, states
        self._log: list[str] = []

    def stream_log(self, run_id: int, after: float, seconds: float) -> Iterator[tuple[str, float]]:
        lines, error = self._streams.pop(0)
        self._log += lines
        for time, line in enumerate(self._log, 1):
            if time > after:
                yield line, float(time)
        if error:
            raise ControlApiError("host:1", error, "gone")

    def find_run(self, run_id: int, seconds: float) -> KnownRun:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if state is None:
            raise ControlApiError("host:1", "UNAVAILABLE", "gone")
        return state


def followed(control: Control) -> tuple[KnownRun, list[str]]:
    lines: list[str] = []
    return follow(cast(ControlClient, control), 7, lines.append), lines


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_run, "RECONNECT_POLL_SECONDS", 0.001)
    monkeypatch.setattr(follow_run, "RECONNECT_TIMEOUT", 0.2)


def test_the_log_is_written_and_the_outcome_returned() -> None:
    assert followed(Control([(["a\n", "b\n"], "")], [COMPLETED])) == (COMPLETED, ["a\n", "b\n"])


def test_an_interrupted_stream_continues_after_its_last_line() -> None:
    control = Control([(["a\n"], "UNAVAILABLE"), (["b\n"], "")], [None, None, RUNNING, COMPLETED])
    run, lines = followed(control)
    assert run == COMPLETED
    assert lines == ["a\n", "bouquet: run 7: log stream interrupted; the run continues\n", "b\n"]


def test_a_stream_that_has_reached_its_age_is_replaced_without_a_word() -> None:
    assert followed(Control([(["a\n"], "DEADLINE_EXCEEDED"), (["b\n"], "")], [COMPLETED]))[1] == ["a\n", "b\n"]


def test_a_superlink_that_stays_away_is_an_error() -> None:
    with pytest.raises(ControlApiError, match="UNAVAILABLE"):
        followed(Control([([], "UNAVAILABLE")], [None]))
