"""The list of packages that a fleet needs for one app, kept for the next time."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bouquet.errors import HostError, SettingError
from bouquet.files import write_atomically
from bouquet.host.app_project import SETTING
from bouquet.host.packages import requirement_rules
from bouquet.host.packages.app_manifest import AppManifest, locked_versions
from bouquet.host.packages.resolver import resolve
from bouquet.settings.host import PROJECT, HostSettings

LIST = "requirements.txt"
INPUTS = "inputs.sha256"
SHIPPED_LISTS = (PROJECT / "requirements" / "cpu", PROJECT / "requirements" / "cuda")
"""The lists of the shipped app, which come with the checkout. Compose uses the first without `bouquet`."""
HEADER = "# Made by Bouquet from the dependencies of an app: do not edit (docs/images.md)\n"
MACHINES = " or ".join(
    f"(platform_machine == '{machine}' and sys_platform == 'linux')" for machine in ("aarch64", "x86_64")
)
"""Where fleets run: the platforms for which frameworks have packages. Written as uv writes it in a list."""
PYTHONS = ("3.11", "3.12", "3.13")
"""Versions of Python that a fleet may have."""
DIGEST_LENGTH = 12
UNKNOWN = "unknown"
"""In place of a digest: the list of a fleet that an earlier version started."""


@dataclass(frozen=True)
class PackageList:
    """A requirements list with hashes: the app's packages, and Bouquet's own for every image.

    Attributes:
        path: The list. Its name is `requirements.txt`.
        digest: 12 hex digits of the SHA-256 of its content.
        names: The packages that this machine installs, with names normalized as on PyPI: `scikit-learn`.
        app: The app's folder.
        images: The tag of images that have these packages already; None to build the images.
    """

    path: Path
    digest: str
    names: frozenset[str]
    app: Path
    images: str | None = None

    @classmethod
    def read(cls, path: Path, app: Path) -> PackageList:
        """Read a list.

        Args:
            path: The list.
            app: The app that it is for.
        """
        content = path.read_bytes()
        return cls(path, list_digest(content), frozenset(_names(content.decode())), app)


def list_digest(content: bytes) -> str:
    """Return the digest by which lists are told apart."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]


def image_tag(tag: str, digest: str) -> str:
    """Return the tag of the images with a list. Each list has images of its own, so two apps in turn need no build.

    Args:
        tag: The tag of the images of the shipped app, which Compose uses without `bouquet` (TAG).
        digest: The list's digest.
    """
    shipped = [list_digest((folder / LIST).read_bytes()) for folder in SHIPPED_LISTS]
    return tag if digest in (*shipped, UNKNOWN) else f"{tag}-{digest}"


def package_list(app: Path, settings: HostSettings, *, gpus: bool, python: str | None = None) -> PackageList:
    """Return the packages of an app; the same inputs give the identical list, without a network.

    Args:
        app: The app's folder.
        settings: The settings: BOUQUET_HOME, where lists are kept.
        gpus: Whether the fleet's nodes compute on GPUs.
        python: The fleet's version of Python, such as `3.11` or `3.11.2`; None if it is unknown.

    Raises:
        SettingError: The folder has no Flower App, or the fleet cannot run the app.
        HostError: A package cannot be installed.
    """
    manifest = AppManifest.read(app)
    inputs = _Inputs.of(manifest, gpus=gpus, python=python)
    kept = settings.home / "packages" / inputs.digest / LIST
    shipped = next((folder / LIST for folder in SHIPPED_LISTS if _is_made_from(folder, inputs)), None)
    if shipped is None and not kept.is_file():
        content = inputs.resolve(manifest.name)
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, content.encode())
        except OSError as error:
            hint = "give a folder that you may write"
            raise SettingError("BOUQUET_HOME", settings.home, f"cannot be written ({error.strerror})", hint) from error
    return PackageList.read(shipped or kept, app)


def write_shipped_lists() -> None:
    """Resolve the shipped app's packages, and write its lists into the checkout.

    Raises:
        HostError: A package cannot be installed.
    """
    manifest = AppManifest.read(PROJECT)
    for folder, gpus in zip(SHIPPED_LISTS, (False, True), strict=True):
        inputs = _Inputs.of(manifest, gpus=gpus, python=None)
        content = inputs.resolve(manifest.name)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / LIST, content.encode())
        write_atomically(folder / INPUTS, f"{inputs.digest}\n".encode())


@dataclass(frozen=True)
class _Inputs:
    """Everything that decides on a list.

    Attributes:
        dependencies: What the app asks for, after `requirement_rules`, and what every image needs.
        uv: The table `[tool.uv]`.
        python: The oldest Python that the list is for.
        preferred: Versions to prefer: those of the app's `uv.lock`, or else of Bouquet's.
        torch_backend: UV_TORCH_BACKEND, uv's choice of torch's build.
    """

    dependencies: tuple[str, ...]
    uv: dict[str, Any]
    python: str
    preferred: tuple[tuple[str, str], ...]
    torch_backend: str

    @classmethod
    def of(cls, manifest: AppManifest, *, gpus: bool, python: str | None) -> _Inputs:
        """Return the inputs for one app.

        Raises:
            SettingError: The fleet cannot run the app.
        """
        fleet = fleet_requirements()
        flower = next(each for each in fleet if each.name == requirement_rules.FLOWER)
        _check_flower(manifest, flower)
        adapted = requirement_rules.adapt(manifest.dependencies, flower, gpus=gpus)
        of_app = (Requirement(text) for text in manifest.uv.get("override-dependencies", ()))
        overrides = [
            *requirement_rules.overrides(adapted, flower),
            *(each for each in of_app if canonicalize_name(each.name) != requirement_rules.FLOWER),
        ]
        return cls(
            dependencies=tuple(dict.fromkeys(map(str, [*adapted, *fleet]))),
            uv={
                **manifest.uv,
                "override-dependencies": [str(each) for each in overrides],
                "environments": [MACHINES],
            },
            python=_oldest_python(manifest, python),
            preferred=manifest.locked or locked_versions(PROJECT),
            torch_backend=os.environ.get("UV_TORCH_BACKEND", ""),
        )

    @property
    def digest(self) -> str:
        """The SHA-256 of all inputs, in hex."""
        return hashlib.sha256(json.dumps(vars(self), sort_keys=True, default=str).encode()).hexdigest()

    def resolve(self, name: str) -> str:
        """Return the list for the app of this name."""
        project = {"dependencies": list(self.dependencies), "requires-python": f">={self.python}"}
        resolved = resolve(name, project, self.uv, self.python, self.preferred)
        return HEADER + resolved.replace(f" ; {MACHINES} \\\n", " \\\n")


def fleet_requirements() -> tuple[Requirement, ...]:
    """Return what Bouquet needs in every fleet, whatever the app: the dependency group `fleet`."""
    content = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    return tuple(Requirement(text) for text in content["dependency-groups"]["fleet"])


def _check_flower(manifest: AppManifest, flower: Requirement) -> None:
    (pinned,) = flower.specifier
    for each in manifest.dependencies:
        if canonicalize_name(each.name) == requirement_rules.FLOWER and not each.specifier.contains(pinned.version):
            raise SettingError(
                SETTING,
                manifest.folder,
                f"the app needs {each}, and this fleet has Flower {pinned.version}",
                f"allow that version in its pyproject.toml, if the app works with it: flwr>={pinned.version}",
            )


def _oldest_python(manifest: AppManifest, python: str | None) -> str:
    """Return the oldest Python that fits the app, of those that a fleet may have.

    Raises:
        SettingError: The fleet's Python does not fit.
    """
    fitting = [version for version in PYTHONS if manifest.python.contains(_newest_patch(version))]
    if not fitting or (python is not None and not manifest.python.contains(_newest_patch(python))):
        has = f"this fleet has Python {python}" if python else f"Bouquet runs on Python {PYTHONS[0]} to {PYTHONS[-1]}"
        hint = "change requires-python in its pyproject.toml, or the fleet's Python: BASE_IMAGE for containers, PYTHON "
        raise SettingError(
            SETTING, manifest.folder, f"requires-python = '{manifest.python}', and {has}", f"{hint}for processes"
        )
    return fitting[0]


def _newest_patch(version: str) -> str:
    """Return a version with its patch number; the highest one where that is unknown."""
    return version if version.count(".") > 1 else f"{version}.99"


def _is_made_from(folder: Path, inputs: _Inputs) -> bool:
    with suppress(OSError):
        return (folder / INPUTS).read_text(encoding="utf-8").strip() == inputs.digest
    return False


def _names(content: str) -> Iterator[str]:
    for line in content.splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate():
                yield canonicalize_name(requirement.name)


if __name__ == "__main__":
    try:
        write_shipped_lists()
    except HostError as error:
        raise SystemExit(f"bouquet: error: {error}") from None
