"""Which app `bouquet run` runs, and whether that is one."""

import tomllib
from pathlib import Path

from bouquet.errors import SettingError

NAME = "APP"
HINT = "give the folder of a Flower App, with its pyproject.toml: bouquet run path/to/app"
COMPONENTS = ("serverapp", "clientapp")
EXAMPLES_SHOWN = 5


def check_app(app: Path) -> None:
    """Check that a folder is one with a Flower App.

    Args:
        app: The folder.

    Raises:
        SettingError: It is missing, cannot be read, or has no Flower App.
    """
    if not app.is_dir():
        problem = "it is a file, and no bundle" if app.is_file() else "there is no such folder"
        raise SettingError(NAME, app, problem, HINT)
    file = app / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingError(NAME, app, "it has no pyproject.toml", _apps_below(app) or HINT) from None
    except OSError as error:
        raise SettingError(NAME, app, f"its pyproject.toml cannot be read ({error.strerror})", HINT) from error
    except ValueError as error:
        raise SettingError(NAME, app, f"its pyproject.toml is not TOML ({error})", f"correct {file}") from error
    if missing := [part for part in COMPONENTS if not _component(project, part)]:
        problem = f"its pyproject.toml does not name a {' or a '.join(missing)} in [tool.flwr.app.components]"
        raise SettingError(NAME, app, problem, HINT)


def _component(project: object, part: str) -> object:
    for key in ("tool", "flwr", "app", "components", part):
        project = project.get(key) if isinstance(project, dict) else None
    return project


def _apps_below(folder: Path) -> str:
    """Return a hint that names the folders below that may be apps; empty for none."""
    found = sorted(file.parent.name for file in folder.glob("*/pyproject.toml"))
    return f"give one of its folders: {', '.join(found[:EXAMPLES_SHOWN])}" if found else ""
