"""A run: its log, its end, its interruption."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bouquet.errors import RunError
from bouquet.flower import follow_run
from bouquet.flower.control_client import ControlApiError, KnownRun
from bouquet.host import run
from bouquet.host.connection import write_connection
from bouquet.host.endpoint import Endpoint
from bouquet.host.interrupts import Interrupted, Terminated
from bouquet.host.run import Outcome, stop_command, submit

APP = Path("/some/app")
COMPLETED = Outcome("7", "finished:completed", "")


class FakeControl:
    """A Control API whose log streams are given as lists of parts; an error in a list interrupts the stream."""

    def __init__(self, *streams: list[tuple[str, float] | ControlApiError | KeyboardInterrupt]) -> None:
        self.streams = list(streams)
        self.statuses = ["finished:completed"]
        self.after: list[float] = []
        self.submitted: list[KnownRun] = []
        self.stopped: list[int] = []
        self.refusal: ControlApiError | None = None

    def __call__(self, address: str, root_certificate: bytes | None) -> "FakeControl":
        assert (address, root_certificate) == (HERE.address, HERE.root_certificate)
        return self

    def __enter__(self) -> "FakeControl":
        return self

    def __exit__(self, *_: object) -> None: ...

    def stream_log(self, run_id: int, after: float, seconds: float) -> Iterator[tuple[str, float]]:
        self.after.append(after)
        for part in self.streams.pop(0):
            if isinstance(part, BaseException):
                raise part
            yield part

    def find_run(self, run_id: int, seconds: float) -> KnownRun:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status == "unreachable":
            raise ControlApiError("here", "UNAVAILABLE", "nobody answers")
        return KnownRun(run_id, status, "", 0.0)

    def list_runs(self, seconds: float) -> list[KnownRun]:
        return self.submitted

    def stop_run(self, run_id: int, seconds: float) -> None:
        if self.refusal:
            raise self.refusal
        self.stopped.append(run_id)


HERE = Endpoint("127.0.0.1:9093", b"CA")
GONE = ControlApiError("here", "UNAVAILABLE", "going away")
REFRESH = ControlApiError("here", "DEADLINE_EXCEEDED", "")


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeControl]]:
    """Replace the Control API, submission by run 7, and all waiting."""

    def install(*streams: Any) -> FakeControl:
        fake = FakeControl(*streams)
        monkeypatch.setattr("bouquet.flower.control_client.ControlClient", fake)
        return fake

    monkeypatch.setattr(run, "submit_app", lambda app, run_config, endpoint: {APP: 7}[app])
    monkeypatch.setattr(run, "FLWR", Path("/environment/bin/flwr"))  # without a space
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(run, "SECOND_CTRL_C_SECONDS", 0.05)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield install
    signal.signal(signal.SIGINT, before)


def test_the_log_is_printed_and_the_outcome_asked_from_the_fleets_own_endpoint(
    control: Callable[..., FakeControl], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    control([("one\n", 1.0), ("two\n", 2.0)])
    write_connection("127.0.0.1:1", tmp_path)  # another fleet's
    submitted: list[str] = []
    assert submit(APP, "", HERE, tmp_path, lambda: submitted.append(capfd.readouterr().out)) == COMPLETED
    assert submitted == [""]  # before the log, which may take hours
    assert capfd.readouterr().out == "Successfully started run 7\none\ntwo\n"


def test_an_interrupted_log_stream_continues_where_it_stopped(
    control: Callable[..., FakeControl], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake = control([("one\n", 1.0), GONE], [("two\n", 2.0), REFRESH], [("three\n", 3.0)])
    fake.statuses = ["unreachable", "running", "finished:completed"]
    assert submit(APP, "", HERE, tmp_path) == COMPLETED
    shown = capfd.readouterr().out.splitlines()
    assert shown[1:] == ["one", "bouquet: run 7: log stream interrupted; the run continues", "two", "three"]
    assert fake.after == [0.0, 1.0, 2.0]


def test_a_run_that_ended_while_the_stream_was_interrupted_still_shows_the_rest_of_its_log(
    control: Callable[..., FakeControl], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    control([("one\n", 1.0), GONE], [("two\n", 2.0)])
    assert submit(APP, "", HERE, tmp_path) == COMPLETED
    assert capfd.readouterr().out.splitlines()[1:] == ["one", "two"]


def test_a_superlink_that_stays_unreachable_is_an_error_with_the_reason(
    control: Callable[..., FakeControl], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_run, "RECONNECT_TIMEOUT", 0.05)
    control([GONE]).statuses = ["unreachable"]
    with pytest.raises(RunError, match=r"run 7: its status is unknown \(here: UNAVAILABLE: nobody answers\)"):
        submit(APP, "", HERE, tmp_path)


def test_ctrl_c_says_that_the_run_continues_and_how_to_stop_it(
    control: Callable[..., FakeControl], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake = control([("one\n", 1.0), KeyboardInterrupt()])
    write_connection(HERE.address, tmp_path, HERE.root_certificate)
    with pytest.raises(Interrupted) as interrupted:
        submit(APP, "", HERE, tmp_path)
    assert (interrupted.value.line, interrupted.value.exit_code) == ("", 130)
    (line,) = capfd.readouterr().err.split("\n")[1:-1]
    assert line.startswith(f"bouquet: run 7 continues; stop it with: FLWR_HOME={tmp_path} ")
    assert "flwr stop 7 local-deployment, or press Ctrl-C again within " in line
    assert fake.stopped == []


@pytest.mark.parametrize("refusal", [None, ControlApiError("here", "FAILED_PRECONDITION", "Run is already finished.")])
def test_a_second_ctrl_c_stops_the_run_or_says_why_not(
    refusal: ControlApiError | None,
    control: Callable[..., FakeControl],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = control()
    fake.refusal = refusal

    def press_ctrl_c(*_: Any) -> Iterator[tuple[str, float]]:
        os.kill(os.getpid(), signal.SIGINT)
        yield ("", 0.0)

    monkeypatch.setattr(fake, "stream_log", press_ctrl_c)
    monkeypatch.setattr("time.sleep", lambda seconds: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted) as interrupted:
        submit(APP, "", HERE, tmp_path)
    assert interrupted.value.exit_code == 130
    if refusal is None:
        assert fake.stopped == [7]
        assert interrupted.value.line == "run 7 was stopped; the fleet stays up"
    else:
        assert interrupted.value.line == ("run 7 was not stopped: here: FAILED_PRECONDITION: Run is already finished.")


def test_sigterm_says_that_the_run_continues_and_does_not_wait(
    control: Callable[..., FakeControl], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    control([Terminated()])
    with pytest.raises(Interrupted) as interrupted:
        submit(APP, "", HERE, tmp_path)
    assert interrupted.value.exit_code == 143
    assert capfd.readouterr().err.endswith("flwr stop 7 local-deployment\n")


@pytest.mark.parametrize("submitted", [True, False])
def test_ctrl_c_during_the_submission_says_whether_a_run_was_submitted(
    submitted: bool,
    control: Callable[..., FakeControl],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def interrupted_submission(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "submit_app", interrupted_submission)
    fake = control()
    fake.submitted = [KnownRun(5, "finished:completed", "", time.time() - 60)]
    if submitted:
        fake.submitted.append(KnownRun(8, "running", "", time.time() + 1))
    with pytest.raises(Interrupted) as interrupted:
        submit(APP, "", HERE, tmp_path)
    if submitted:
        assert "run 8 continues" in capfd.readouterr().err
    else:
        assert interrupted.value.line.startswith("interrupted; no run was submitted; the fleet stays up")


def test_the_stop_command_is_what_the_user_can_type_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(run, "FLWR", tmp_path / ".venv" / "bin" / "flwr")
    write_connection(HERE.address, tmp_path / ".flwr", HERE.root_certificate)
    assert stop_command(7, HERE, tmp_path / ".flwr") == f"{tmp_path}/.venv/bin/flwr stop 7 local-deployment"
    monkeypatch.chdir(tmp_path)
    assert stop_command(7, HERE, tmp_path / ".flwr") == ".venv/bin/flwr stop 7 local-deployment"
    write_connection("127.0.0.1:1", tmp_path / ".flwr")
    assert stop_command(7, HERE, tmp_path / ".flwr").startswith("make connection && .venv/bin/flwr stop 7 ")
