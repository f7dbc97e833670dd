"""APP: a folder with a Flower App, or one line that says what is missing."""

from pathlib import Path

import pytest

from bouquet.errors import SettingError
from bouquet.host.app_project import read_project
from bouquet.settings.host import PROJECT

COMPLETE = '[tool.flwr.app.components]\nserverapp = "a:app"\nclientapp = "b:app"\n'


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(COMPLETE)
    return tmp_path


def test_the_shipped_app_and_any_other_flower_app_pass(app: Path) -> None:
    assert read_project(PROJECT)["project"]["name"] == "bouquet"
    assert read_project(app)["tool"]["flwr"]["app"]["components"] == {"serverapp": "a:app", "clientapp": "b:app"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "does not name a serverapp or a clientapp in [tool.flwr.app.components]"),
        ("tool = 1", "does not name a serverapp or a clientapp"),
        (COMPLETE.replace('clientapp = "b:app"', ""), "does not name a clientapp in"),
        ("[tool", "is not TOML"),
    ],
)
def test_a_folder_that_is_no_flower_app_is_refused(app: Path, content: str, problem: str) -> None:
    (app / "pyproject.toml").write_text(content)
    with pytest.raises(SettingError) as refused:
        read_project(app)
    assert str(refused.value).startswith(f"APP={app}: its pyproject.toml {problem}")
    assert "\n" not in str(refused.value)


def test_a_path_without_a_folder_is_refused(app: Path) -> None:
    with pytest.raises(SettingError, match="nowhere: there is no such folder; give the folder of a Flower App"):
        read_project(app / "nowhere")
    with pytest.raises(SettingError, match="it is a file; only `bouquet run` accepts one, a bundle"):
        read_project(app / "pyproject.toml")


def test_a_folder_above_apps_is_refused_with_their_names(app: Path) -> None:
    with pytest.raises(SettingError, match="it has no pyproject.toml; give the folder of a Flower App"):
        (app / "pyproject.toml").rename(app / "other.toml")
        read_project(app)
    (app / "quickstart").mkdir()
    (app / "other.toml").rename(app / "quickstart" / "pyproject.toml")
    with pytest.raises(SettingError, match="it has no pyproject.toml; give one of its folders: quickstart"):
        read_project(app)


def test_a_file_that_cannot_be_read_is_named(app: Path) -> None:
    (app / "pyproject.toml").unlink()
    (app / "pyproject.toml").mkdir()
    with pytest.raises(SettingError, match="its pyproject.toml cannot be read .Is a directory"):
        read_project(app)
