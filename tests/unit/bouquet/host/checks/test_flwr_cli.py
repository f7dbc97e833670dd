"""What `doctor` says of the `flwr` commands that it finds."""

from pathlib import Path

import pytest

from bouquet.host.checks import flwr_cli
from bouquet.host.checks.flwr_cli import describe, fit


def command(folder: Path, script: str) -> Path:
    """A `flwr` that runs a shell script."""
    folder.mkdir(exist_ok=True)
    path = folder / "flwr"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("major", "minor", "answer"),
    [
        (1, 33, "too old"),
        (0, 99, "too old"),
        (1, 34, "fits"),
        (1, 37, "fits"),
        (1, 42, "fits"),
        (1, 43, "newer than 1.42"),
        (2, 0, "newer than 1.42"),
    ],
)
def test_releases_from_1_34_on_fit(major: int, minor: int, answer: str) -> None:
    assert fit(major, minor).startswith(answer)


def test_both_commands_are_named_with_their_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = command(tmp_path / "own", "echo Flower version: 1.34.0")
    other = command(tmp_path / "other", "echo Flower version: 1.42.0")
    monkeypatch.setenv("PATH", f"{other.parent}:/bin:/usr/bin")
    assert flwr_cli.flwr_cli(own) == f"{own} 1.34.0, fits; on PATH: {other} 1.42.0, fits"


def test_a_command_that_is_bouquets_own_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = command(tmp_path / "own", "echo Flower version: 1.34.0")
    monkeypatch.setenv("PATH", f"{own.parent}:/bin:/usr/bin")
    assert flwr_cli.flwr_cli(own) == f"{own} 1.34.0, fits"


def test_missing_commands_are_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert flwr_cli.flwr_cli(tmp_path / "flwr") == f"{tmp_path / 'flwr'} is missing: make up; none on PATH"


def test_a_command_that_hangs_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flwr_cli, "VERSION_SECONDS", 0.2)
    assert describe(command(tmp_path, "exec sleep 60")).endswith("did not tell its version within 0.2 s")


def test_a_command_that_says_something_else_is_no_failure(tmp_path: Path) -> None:
    assert describe(command(tmp_path, "echo broken >&2; exit 1")).endswith("does not tell its version")


def test_a_command_that_does_not_start_is_no_failure(tmp_path: Path) -> None:
    path = command(tmp_path, "")
    path.write_text("#!/no/such/interpreter\n")
    assert describe(path).endswith("does not start: No such file or directory")
