"""The `pyproject.toml` of the app that the fleet runs, and whether it is one of a Flower App."""

import tomllib
from pathlib import Path
from typing import Any

from bouquet.errors import SettingError

SETTING = "APP"
HINT = "give the folder of a Flower App, with its pyproject.toml: bouquet run path/to/app"
COMPONENTS = ("serverapp", "clientapp")
MAX_FOLDERS = 5
"""Folders that a hint names."""


def read_project(app: Path) -> dict[str, Any]:
    """Return the contents of the `pyproject.toml` of a Flower App.

    Args:
        app: The folder.

    Raises:
        SettingError: It is missing, cannot be read, or has no Flower App.
    """
    if not app.is_dir():
        problem = (
            "it is a file; only `bouquet run` accepts one, a bundle" if app.is_file() else "there is no such folder"
        )
        raise SettingError(SETTING, app, problem, HINT)
    file = app / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingError(SETTING, app, "it has no pyproject.toml", _apps_below(app) or HINT) from None
    except OSError as error:
        raise SettingError(SETTING, app, f"its pyproject.toml cannot be read ({error.strerror})", HINT) from error
    except ValueError as error:
        raise SettingError(SETTING, app, f"its pyproject.toml is not TOML ({error})", f"correct {file}") from error
    if missing := [part for part in COMPONENTS if not _component(project, part)]:
        problem = f"its pyproject.toml does not name a {' or a '.join(missing)} in [tool.flwr.app.components]"
        raise SettingError(SETTING, app, problem, HINT)
    return project


def _component(project: object, part: str) -> object:
    for key in ("tool", "flwr", "app", "components", part):
        project = project.get(key) if isinstance(project, dict) else None
    return project


def _apps_below(folder: Path) -> str:
    """Return a hint that names the folders below that may be apps; empty for none."""
    found = sorted(file.parent.name for file in folder.glob("*/pyproject.toml"))
    return f"give one of its folders: {', '.join(found[:MAX_FOLDERS])}" if found else ""
