"""`make .venv/ready`: where the environment goes, and what is never overwritten. Nothing is installed here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bouquet.errors import HostError, SettingError
from bouquet.host.bootstrap import environment as module
from bouquet.host.own_folder import MARKER, is_own
from bouquet.settings.host import PROJECT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make .venv/ready` needs of a checkout, in a folder whose name has spaces, an accent and parentheses."""
    folder = tmp_path / ".café" / "my fleet (2)"
    shutil.copytree(
        PROJECT / "deploy" / "bouquet", folder / "deploy" / "bouquet", ignore=shutil.ignore_patterns("*.pyc")
    )
    (folder / "requirements").mkdir()
    for name in ("Makefile", "uv.lock", "requirements/uv.txt"):
        shutil.copy(PROJECT / name, folder / name)
    return folder


@pytest.fixture
def thesis(tmp_path: Path) -> Path:
    """A folder of the user's."""
    folder = tmp_path / "thesis 2"
    folder.mkdir()
    (folder / "chapter1.txt").write_text("years of work")
    return folder


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record the commands that would install the packages."""
    recorded: list[list[str]] = []

    def record(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        recorded.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="")

    monkeypatch.setattr(subprocess, "run", record)
    return recorded


def make(checkout: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "BOUQUET_"))}
    return subprocess.run(
        ["make", ".venv/ready"],
        cwd=checkout,
        env=environment | settings,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )


def fake_python(folder: Path) -> tuple[Path, Path]:
    """A PYTHON that only writes down its arguments, and the file that it writes them to."""
    calls, python = folder / "calls", folder / "my python"
    python.write_text(f"#!/bin/sh\nprintf '%s|' \"$@\" \"$PYTHONPATH\" >> '{calls}'\nexit 1\n")
    python.chmod(0o755)
    return python, calls


def test_make_starts_python_in_any_path_and_takes_no_notice_of_venv(
    checkout: Path, thesis: Path, tmp_path: Path
) -> None:
    python, calls = fake_python(tmp_path)
    make(checkout, PYTHON=str(python), VENV=str(thesis), XDG_CACHE_HOME=str(thesis))
    assert calls.read_text() == "-m|bouquet.host.bootstrap.environment|deploy|"
    assert [path.name for path in thesis.iterdir()] == ["chapter1.txt"]


def test_make_refuses_a_folder_of_the_users_in_one_line(checkout: Path, thesis: Path) -> None:
    done = make(checkout, BOUQUET_VENV=str(thesis), PYTHON=sys.executable)
    assert done.returncode != 0
    error = [line for line in done.stdout.splitlines() if not line.startswith("make")]
    assert error == [
        f"bouquet: error: BOUQUET_VENV={thesis}: {thesis} has files that are not Bouquet's (chapter1.txt, ...); "
        "move it away, or set BOUQUET_VENV to another folder"
    ]
    assert [path.name for path in thesis.iterdir()] == ["chapter1.txt"]
    assert not os.path.lexists(checkout / ".venv")


def test_the_environment_is_in_the_cache_and_another_one_for_each_checkout(tmp_path: Path) -> None:
    places = {
        module.environment_folder(Path(project), {"XDG_CACHE_HOME": str(tmp_path / "a b")})
        for project in ("/one", "/two", "/my fleet")
    }
    assert len(places) == 3
    assert {place.parent for place in places} == {tmp_path / "a b" / "bouquet"}
    assert module.environment_folder(Path("/one"), {"XDG_CACHE_HOME": "relative"}).is_relative_to(Path.home())
    assert module.environment_folder(Path("/one"), {"BOUQUET_VENV": "~/x"}) == Path.home() / "x"
    assert module.environment_folder(Path("/one"), {"BOUQUET_VENV": "x"}) == Path("/one/x")


def test_an_environment_is_recreated_in_place_and_linked(
    checkout: Path, tmp_path: Path, commands: list[list[str]]
) -> None:
    folder = tmp_path / "cache é" / "venv"
    for _ in range(2):
        module.create(checkout, {"BOUQUET_VENV": str(folder)})
        assert sorted(path.name for path in folder.iterdir()) == [MARKER]
        assert (checkout / ".venv").readlink() == folder
        (folder / "old-package.py").touch()
    installs = [command for command in commands if "sync" in command or "-r" in command]
    assert len(installs) == 4
    assert all("--require-hashes" in command for command in installs)
    assert "--locked" not in {word for command in commands for word in command}


def test_an_environment_in_the_checkout_itself_needs_no_link(checkout: Path, commands: list[list[str]]) -> None:
    for _ in range(2):
        module.create(checkout, {"BOUQUET_VENV": ".venv"})
    assert is_own(checkout / ".venv")
    assert not (checkout / ".venv").is_symlink()


@pytest.mark.parametrize("as_link", [False, True])
def test_an_environment_of_the_users_own_is_not_touched(
    checkout: Path, thesis: Path, tmp_path: Path, commands: list[list[str]], as_link: bool
) -> None:
    if as_link:
        (checkout / ".venv").symlink_to(thesis)
    else:
        thesis.rename(checkout / ".venv")
    with pytest.raises(SettingError, match="this is an environment of your own; move it away"):
        module.create(checkout, {"BOUQUET_VENV": str(tmp_path / "new")})
    assert [path.name for path in (checkout / ".venv").iterdir()] == ["chapter1.txt"]
    assert (checkout / ".venv").is_symlink() == as_link
    assert not commands
    assert not (tmp_path / "new").exists()


def test_a_link_that_leads_nowhere_or_to_an_environment_of_version_0_1_is_replaced(
    checkout: Path, tmp_path: Path, commands: list[list[str]]
) -> None:
    old = tmp_path / "bouquet" / "venv-2674982963"
    (checkout / ".venv").symlink_to(old)
    module.create(checkout, {"BOUQUET_VENV": str(tmp_path / "new")})
    old.mkdir(parents=True)
    (old / "pyvenv.cfg").touch()
    (checkout / ".venv").unlink()
    (checkout / ".venv").symlink_to(old)
    module.create(checkout, {"BOUQUET_VENV": str(tmp_path / "new")})
    assert (checkout / ".venv").readlink() == tmp_path / "new"
    assert (old / "pyvenv.cfg").exists()


def test_an_old_python_is_refused(checkout: Path, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    with pytest.raises(HostError, match=r"this is Python 3.9, and Bouquet needs 3.11 to 3.13"):
        module.create(checkout, {})
    assert not commands


def test_a_failed_installation_names_the_step_and_can_be_repeated(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, stdout="")
    expected = "is incomplete: `python -m venv` failed; fix the error"
    with monkeypatch.context() as patched, pytest.raises(HostError, match=expected):
        patched.setattr(subprocess, "run", lambda command, **_: failed)
        module.create(checkout, {"BOUQUET_VENV": str(tmp_path / "new")})
    assert is_own(tmp_path / "new")
    assert not os.path.lexists(checkout / ".venv")
