"""Submitting an app from within the fleet."""

import io
import signal
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bouquet.errors import RunError, SettingError
from bouquet.flower.control_client import ControlApiError, KnownRun
from bouquet.oneshot import submit


class Control:
    """A SuperLink that accepts a run, unless it has a reason not to."""

    refusal = ""

    def __init__(self, address: str = "", root_certificates: bytes | None = None) -> None:
        self.address, self.root_certificates = address, root_certificates
        self.started: tuple[bytes, str] | None = None

    def __enter__(self) -> "Control":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start_run(self, fab: bytes, run_config: str, seconds: float) -> int:
        if self.refusal:
            raise ControlApiError("control:9093", "INVALID_ARGUMENT", self.refusal)
        self.started = (fab, run_config)
        return 7


def fab() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as files:
        files.writestr("pyproject.toml", "[tool.flwr.app.config]\nrounds = 3\nname = ''\n")
    return buffer.getvalue()


def submitted(control: Any, content: bytes, run_config: str) -> int:
    return submit.submit(control, content, run_config)


def test_a_run_is_submitted_with_its_run_config() -> None:
    control = Control()
    assert submitted(control, fab(), "rounds=5") == 7
    assert control.started == (fab(), "rounds=5")


def test_an_unknown_key_is_named_before_the_submission() -> None:
    control = Control()
    with pytest.raises(SettingError, match="the app has no setting round; it has: name, rounds"):
        submitted(control, fab(), "round=5")
    assert control.started is None


def test_what_is_no_fab_is_refused() -> None:
    with pytest.raises(SettingError, match="stdin=3 bytes: it is not a FAB"):
        submitted(Control(), b"abc", "")


def test_a_rejected_run_is_an_error_with_the_reason() -> None:
    control = Control()
    control.refusal = "no such federation"
    with pytest.raises(RunError, match="the run was rejected: no such federation"):
        submitted(control, fab(), "")


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Control]:
    """A container of the fleet; the connections that were opened."""
    opened: list[Control] = []
    (tmp_path / "ca.crt").write_bytes(b"the CA")
    monkeypatch.setenv("BOUQUET_SERVER_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(fab())))

    def connect(*where: Any) -> Control:
        opened.append(Control(*where))
        return opened[-1]

    monkeypatch.setattr(submit, "ControlClient", connect)
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "signal", lambda *_: before)
    return opened


def ends_as(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    def follow(client: object, run_id: int, write: Any) -> KnownRun:
        write("the log\n")
        return KnownRun(run_id, status, "node 3 failed", 0.0)

    monkeypatch.setattr(submit, "follow_run", follow)


def test_stdout_has_the_id_only_and_stderr_the_log(
    inside: list[Control], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends_as(monkeypatch, "finished:completed")
    submit.main([])
    printed = capsys.readouterr()
    assert printed.out == "7\n"
    assert printed.err == "Successfully started run 7\nthe log\n"
    assert (inside[0].address, inside[0].root_certificates) == ("control:9093", b"the CA")


def test_repeated_overrides_are_joined(inside: list[Control], monkeypatch: pytest.MonkeyPatch) -> None:
    ends_as(monkeypatch, "finished:completed")
    submit.main(["--run-config", "rounds=5", "--run-config", "name='x'"])
    assert inside[0].started == (fab(), "rounds=5 name='x'")


def test_a_run_that_did_not_complete_is_an_error(inside: list[Control], monkeypatch: pytest.MonkeyPatch) -> None:
    ends_as(monkeypatch, "finished:failed")
    with pytest.raises(RunError, match="run 7 ended as finished:failed: node 3 failed"):
        submit.main([])


def test_an_interrupt_leaves_the_run_and_says_so(
    inside: list[Control], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> KnownRun:
        raise KeyboardInterrupt

    monkeypatch.setattr(submit, "follow_run", interrupted)
    with pytest.raises(SystemExit) as ended:
        submit.main([])
    assert ended.value.code == 130
    assert "run 7 continues on the fleet" in capsys.readouterr().err
