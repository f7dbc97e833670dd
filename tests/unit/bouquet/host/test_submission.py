"""Submitting an app: the arguments and variables of `flwr run`, and what it says when it rejects the run."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bouquet.errors import RunError
from bouquet.host import submission
from bouquet.host.endpoint import Endpoint
from bouquet.host.submission import submit_app

RECORDING_FLWR = """#!/usr/bin/env python3
import json, os, pathlib, sys
home = pathlib.Path(os.environ["FLWR_HOME"])
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps({{
    "arguments": sys.argv[1:], "environment": dict(os.environ), "session": os.getsid(0) == os.getpid(),
    "files": {{file.name: file.read_text() for file in home.iterdir()}},
}}))
{end}
"""
STARTED = """print(json.dumps({"success": True, "run-id": "7"}))"""
SECURE = Endpoint("127.0.0.1:9093", b"the CA")


@pytest.fixture
def flwr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace `flwr` by a script; return a function that sets its end and one that reads what it recorded."""
    script = tmp_path / "flwr"
    monkeypatch.setattr(submission, "FLWR", script)

    def install(end: str) -> None:
        script.write_text(RECORDING_FLWR.format(end=end))
        script.chmod(0o755)

    install(STARTED)
    return install


def recorded(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "flwr.json").read_text())
    return found


@pytest.mark.usefixtures("flwr")
def test_flwr_gets_a_home_with_this_fleets_connection_only_whatever_the_user_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_HOME", "/home/user/.flwr")
    assert submit_app(tmp_path, "a=1", SECURE) == 7
    call = recorded(tmp_path)
    assert call["arguments"] == ["run", str(tmp_path), "bouquet-run", "--format", "json", "--run-config", "a=1"]
    home = call["environment"]["FLWR_HOME"]
    assert home != "/home/user/.flwr"
    assert f'root-certificates = "{home}/ca.crt"' in call["files"]["config.toml"]
    assert call["files"]["ca.crt"] == "the CA"
    assert not Path(home).exists()


@pytest.mark.usefixtures("flwr")
def test_flower_itself_reads_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.cli.flower_config import read_superlink_connection

    submission._write_home(tmp_path, SECURE)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    connection = read_superlink_connection(submission.CONNECTION)
    assert (connection.address, connection.insecure) == (SECURE.address, False)
    submission._write_home(tmp_path, Endpoint("127.0.0.1:1", None))
    assert read_superlink_connection(submission.CONNECTION).insecure is True


@pytest.mark.usefixtures("flwr")
def test_flwr_prints_utf_8_whatever_the_terminal_has_and_keeps_the_other_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    monkeypatch.setenv("grpc_proxy", "")  # no proxy for gRPC
    submit_app(tmp_path, "", Endpoint("127.0.0.1:1", None))
    environment = recorded(tmp_path)["environment"]
    assert (environment["PYTHONUTF8"], environment["PYTHONIOENCODING"]) == ("1", "utf-8")
    assert environment["grpc_proxy"] == ""


@pytest.mark.usefixtures("flwr")
def test_flwr_has_a_session_of_its_own_so_that_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    submit_app(tmp_path, "", SECURE)
    assert recorded(tmp_path)["session"] is True


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (
            """print(json.dumps({"success": False, "error-message": "Using SuperLink: here\\nbad value\\n"}))""",
            "RUN_CONFIG=a=1: the run was rejected: bad value; ",
        ),
        ("""sys.exit("Traceback\\nValueError: boom")""", "rejected: Traceback ValueError: boom; "),
        ("""sys.stderr.buffer.write(bytes([0xE9, 33])); sys.exit(2)""", "rejected: \N{REPLACEMENT CHARACTER}!; "),
        ("""sys.exit(1)""", "rejected: flwr gives no reason; "),
    ],
)
def test_a_rejected_run_is_one_line_with_flowers_own_reason(end: str, reason: str, flwr: Any, tmp_path: Path) -> None:
    flwr(end)
    with pytest.raises(RunError) as rejected:
        submit_app(tmp_path, "a=1", SECURE)
    assert reason in str(rejected.value)
    assert "\n" not in str(rejected.value)


def test_an_interrupt_ends_flwr(flwr: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flwr("import time; pathlib.Path(__file__).with_suffix('.pid').write_text(str(os.getpid())); time.sleep(60)")
    communicate = subprocess.Popen.communicate
    calls = []

    def interrupted(self: Any, *arguments: Any) -> Any:
        calls.append(self)
        if len(calls) > 1:
            return communicate(self, *arguments)
        while not ((tmp_path / "flwr.pid").exists() and (tmp_path / "flwr.pid").read_text()):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr("subprocess.Popen.communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        submit_app(tmp_path, "", SECURE)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "flwr.pid").read_text()), 0)
