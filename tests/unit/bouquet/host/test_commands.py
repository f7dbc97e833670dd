"""The command line: what its help says, and which settings the commands get."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from bouquet.errors import FleetError, HostError, RunError, SettingError
from bouquet.host import command_line, commands
from bouquet.host.command_help import DEFAULTS, EXIT_CODES, HELP, MEANINGS
from bouquet.host.command_line import main
from bouquet.host.commands import COMMANDS
from bouquet.settings.host import PROJECT, HostSettings


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a command line prints that ends well without running a command."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[HostSettings]:
    """Replace `run` by a command that only records its settings; no `.env` is read."""
    settings: list[HostSettings] = []
    monkeypatch.setitem(COMMANDS, "run", settings.append)
    monkeypatch.setattr(command_line, "load_dotenv", lambda path: None)
    monkeypatch.setenv("FLWR_HOME", "~/my flwr")
    return settings


def test_the_help_lists_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "--help")
    for name in COMMANDS:
        assert re.search(rf"^ +{name}\b", text, re.MULTILINE), name
    for error in (SettingError, HostError, FleetError, RunError):
        assert f"  {error.exit_code}  {EXIT_CODES[error]}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_a_description_settings_an_example_and_exit_codes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, name, "--help")
    assert HELP[name].description in text
    for setting in HELP[name].settings:
        assert f"  {setting}" in text
    assert f"bouquet {name}" in HELP[name].example
    assert f"example:\n  {HELP[name].example.splitlines()[0]}\n" in text
    assert "  0  success\n  2  a setting, or the command line, is invalid\n" in text


def test_the_help_of_run_explains_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--run-config" in shown(capsys, "run", "--help")


def test_lines_of_the_help_fit_a_wide_terminal() -> None:
    for text in HELP.values():
        assert max(map(len, f"{text.description}\n{text.epilog}".splitlines())) <= 130


def test_every_setting_in_the_help_has_the_documented_default() -> None:
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    active = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE))
    commented_out = re.findall(r"^# ([A-Z_]+)=", example, re.MULTILINE)
    assert DEFAULTS.keys() == MEANINGS.keys() == {name for text in HELP.values() for name in text.settings}
    for name, default in DEFAULTS.items():
        assert (active[name] == default) if default else (name in commented_out), name


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--version") == f"bouquet {version('bouquet')}\n"


@pytest.mark.parametrize("arguments", [[], ["fly"], ["up", "--run-config", "a=1"]])
def test_an_invalid_command_line_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == SettingError.exit_code
    assert "usage: bouquet" in capsys.readouterr().err


def test_the_flag_run_config_wins_over_the_variable(given: list[HostSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_CONFIG", "num-server-rounds=5")
    main(["run", "--run-config", "num-server-rounds=1"])
    main(["run", "--run-config", ""])
    main(["run"])
    assert [settings.run_config for settings in given] == ["num-server-rounds=1", "", "num-server-rounds=5"]


def test_the_path_on_the_command_line_wins_over_the_variable_and_starts_at_the_current_folder(
    given: list[HostSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["run"])
    monkeypatch.setenv("APP", "examples/one")
    main(["run"])
    main(["run", "two", "--run-config", "a=1"])
    assert [settings.app for settings in given] == [PROJECT, PROJECT / "examples" / "one", tmp_path / "two"]


def test_a_path_that_is_no_app_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(commands, "up", lambda settings: pytest.fail("started"))
    with pytest.raises(SettingError, match="it has no pyproject.toml"):
        main(["run", str(tmp_path)])


def test_flwr_gets_its_home_without_a_tilde(given: list[HostSettings]) -> None:
    main(["run"])
    assert os.environ["FLWR_HOME"] == str(given[0].flower_home) == str(Path.home() / "my flwr")


def test_the_module_runs_the_same_command() -> None:
    command = [sys.executable, "-m", "bouquet.host", "--help"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("usage: bouquet ")


def test_an_app_that_the_fleet_cannot_run_is_refused_before_anything_is_built_or_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Untouched:
        """A fleet that may only be asked what it is."""

        def uses_gpus(self) -> bool:
            return False

        def python(self) -> str:
            return "3.11"

    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "new"\ndependencies = ["flwr>=1.40"]\n'
        '[tool.flwr.app.components]\nserverapp = "x:app"\nclientapp = "x:app"\n'
    )
    monkeypatch.setattr(commands, "choose_fleet", lambda settings: (Untouched(), "containers, because I say so"))
    folders = {"APP": tmp_path, "RESULTS": tmp_path / "results", "BOUQUET_HOME": tmp_path / "home"}
    settings = HostSettings.read({name: str(folder) for name, folder in folders.items()})
    with pytest.raises(SettingError, match=r"the app needs flwr>=1.40, and this fleet has Flower 1\.34\.0"):
        commands.up(settings)
