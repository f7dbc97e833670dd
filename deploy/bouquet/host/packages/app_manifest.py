"""What a Flower App asks for: its `pyproject.toml`, and the versions in its `uv.lock`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from bouquet.errors import SettingError
from bouquet.host.app_project import SETTING, read_project

UV_KEYS = (
    "constraint-dependencies",
    "dependency-metadata",
    "exclude-newer",
    "extra-index-url",
    "find-links",
    "index",
    "index-strategy",
    "index-url",
    "keyring-provider",
    "no-binary-package",
    "no-build-package",
    "no-index",
    "override-dependencies",
    "prerelease",
    "resolution",
    "sources",
)
"""Keys of `[tool.uv]` that say which packages an app gets, and from where."""
LOCAL_SOURCES = ("git", "path", "workspace")
PUBLISH_HINT = "name a released version of it, from PyPI or from an index in [[tool.uv.index]]"


@dataclass(frozen=True)
class AppManifest:
    """The part of an app's `pyproject.toml` and `uv.lock` that decides on its packages.

    Attributes:
        folder: The app's folder.
        name: The app's name.
        dependencies: `[project] dependencies`.
        python: `requires-python`; empty for any Python.
        uv: The keys `UV_KEYS` of `[tool.uv]`.
        locked: Names and versions in the app's `uv.lock`; empty without that file.
    """

    folder: Path
    name: str
    dependencies: tuple[Requirement, ...]
    python: SpecifierSet
    uv: dict[str, Any]
    locked: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, app: Path) -> AppManifest:
        """Read the manifest of the app in a folder.

        Raises:
            SettingError: The folder has no Flower App, or its packages cannot be listed with hashes.
        """
        content = read_project(app)
        project = content.get("project", {})
        if "dependencies" in project.get("dynamic", ()):
            hint = "list them under [project] dependencies"
            raise SettingError(SETTING, app, "its dependencies are dynamic, so they are unknown", hint)
        uv = {key: value for key, value in content["tool"].get("uv", {}).items() if key in UV_KEYS}
        found = cls(
            folder=app,
            name=canonicalize_name(str(project.get("name", ""))) or "app",
            dependencies=tuple(_requirement(app, text) for text in project.get("dependencies", ())),
            python=_python(app, str(project.get("requires-python", ""))),
            uv=uv,
            locked=locked_versions(app),
        )
        found._refuse_sources_without_hashes()
        return found

    def _refuse_sources_without_hashes(self) -> None:
        for requirement in self.dependencies:
            url = requirement.url or ""
            if url.startswith("git+") or (url and not url.startswith(("https://", "http://"))):
                raise SettingError(SETTING, self.folder, f"{requirement} has no hash", PUBLISH_HINT)
            for source in _sources(self.uv, requirement.name):
                if local := next((kind for kind in LOCAL_SOURCES if kind in source), None):
                    problem = f"{requirement.name} comes from `{local}` in [tool.uv.sources], so it has no hash"
                    raise SettingError(SETTING, self.folder, problem, PUBLISH_HINT)
        for location in _locations(self.uv):
            if "://" not in location:
                problem = f"[tool.uv] takes packages from the local folder {location}, which images cannot read"
                raise SettingError(SETTING, self.folder, problem, "give a URL instead")


def locked_versions(folder: Path) -> tuple[tuple[str, str], ...]:
    """Return the names and versions in a folder's `uv.lock`; none without that file.

    Raises:
        SettingError: The file is not valid.
    """
    try:
        content = tomllib.loads((folder / "uv.lock").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise SettingError(
            SETTING, folder, f"its uv.lock cannot be read ({error})", "create it again: uv lock"
        ) from error
    packages = content.get("package", ())
    return tuple((each["name"], each["version"]) for each in packages if "version" in each and _is_released(each))


def _requirement(app: Path, text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        problem = f"its dependency {text!r} is not valid ({str(error).splitlines()[0]})"
        raise SettingError(SETTING, app, problem, "correct [project] dependencies in its pyproject.toml") from error


def _python(app: Path, text: str) -> SpecifierSet:
    try:
        return SpecifierSet(text)
    except InvalidSpecifier as error:
        hint = "write it as in requires-python = '>=3.11'"
        raise SettingError(SETTING, app, f"requires-python = {text!r} is not valid", hint) from error


def _sources(uv: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield what `[tool.uv.sources]` says of one package."""
    for key, value in uv.get("sources", {}).items():
        if canonicalize_name(key) == canonicalize_name(name):
            yield from value if isinstance(value, list) else [value]


def _locations(uv: dict[str, Any]) -> Iterator[str]:
    """Yield all indexes and folders that `[tool.uv]` takes packages from."""
    yield from (str(index["url"]) for index in uv.get("index", ()))
    yield from (str(url) for key in ("extra-index-url", "find-links") for url in uv.get(key, ()))
    if "index-url" in uv:
        yield str(uv["index-url"])


def _is_released(package: dict[str, Any]) -> bool:
    return "registry" in package.get("source", {})
