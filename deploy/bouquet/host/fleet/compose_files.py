"""The fleet's Compose files: the same ones for `bouquet` as for a plain `docker compose` in the checkout."""

import os
from collections.abc import Mapping
from pathlib import Path

from bouquet.errors import SettingError

FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = tuple(f"{stem}.override.{suffix}" for stem in ("compose", "docker-compose") for suffix in ("yml", "yaml"))
"""The names that Compose looks for, in its order (`DefaultFileNames` and `DefaultOverrideFileNames` of compose-go)."""


def compose_files(project: Path, environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the files of `COMPOSE_FILE`; by default the checkout's Compose file and, if present, its override file.

    Args:
        project: The checkout, which relative paths in `COMPOSE_FILE` refer to.
        environment: `COMPOSE_FILE`, and `COMPOSE_PATH_SEPARATOR` (`:` by default).

    Raises:
        SettingError: A file of `COMPOSE_FILE` does not exist.
    """
    if setting := environment.get("COMPOSE_FILE"):
        separator = environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        files = [project / name for name in setting.split(separator) if name]
        if missing := [str(file) for file in files if not file.is_file()]:
            hint = f"separate files with {separator}, or leave COMPOSE_FILE out"
            raise SettingError("COMPOSE_FILE", setting, f"there is no file {missing[0]}", hint)
        return files
    found = [[project / name for name in names if (project / name).is_file()] for names in (FILES, OVERRIDES)]
    return [names[0] for names in found if names]
