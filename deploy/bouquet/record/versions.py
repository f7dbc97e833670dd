"""The versions of the packages that a run used."""

from __future__ import annotations

import platform
import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def package_versions(app: Path) -> dict[str, str]:
    """Return the versions of Python, Flower, and the packages that an app depends on directly, by name.

    Packages that are not installed are left out. TensorFlow's wheel for the CPU is listed as ``tensorflow``.

    Args:
        app: The app's folder, with its ``pyproject.toml``.
    """
    versions = {"python": platform.python_version()}
    for name in ["flwr", *_dependencies(app)]:
        try:
            versions[name.lower().replace("_", "-").removesuffix("-cpu")] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _dependencies(app: Path) -> list[str]:
    try:
        project = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        matches = [NAME.match(requirement.strip()) for requirement in project.get("dependencies", [])]
    except (OSError, ValueError, KeyError, AttributeError):
        return []
    return [match.group() for match in matches if match]
