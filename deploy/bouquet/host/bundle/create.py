"""Writes a bundle: `bouquet bundle`."""

import os
import re
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import BinaryIO

from bouquet.errors import SettingError
from bouquet.files import TEMPORARY_SUFFIX
from bouquet.host.bundle import contents, image_archive
from bouquet.host.bundle.contents import Description
from bouquet.host.bundle.tar_writer import TarWriter
from bouquet.runtime.hub_cache import PARTS, is_cache
from bouquet.settings.host import PROJECT

TEMPLATES = PROJECT / "deploy" / "bundle"
GPU_OVERLAY = "deploy/compose/gpu.yml"
CHUNK = 1 << 20
OPTION = "--output"


def describe(app: Path, tag: str, *, gpus: bool) -> Description:
    """Return what a bundle of an app is.

    Args:
        app: The app's folder.
        tag: The tag of the images.
        gpus: Whether the images are for GPUs.

    Raises:
        SettingError: The app's name or version is missing.
        HostError: Docker does not have the images.
    """
    name, app_version = _name_and_version(app)
    return Description(
        name=name,
        version=app_version,
        platform=image_archive.docker_platform(),
        tag=image_archive.content_tag(tag),
        images_for="gpu" if gpus else "cpu",
        bouquet=version("bouquet"),
    )


def default_output(app: Path) -> Path:
    """Return where the bundle of an app goes if the user does not say.

    Raises:
        SettingError: The app's name or version is missing.
    """
    return Path(f"{_folder_name(*_name_and_version(app))}.bundle.tar")


def folder_name(description: Description) -> str:
    """Return the name of the folder that a bundle is unpacked to."""
    return _folder_name(description.name, description.version)


def _folder_name(name: str, version: str) -> str:
    return f"{name}-{version}"


def check_output(path: Path) -> None:
    """Check that a bundle can be written to a file.

    Raises:
        SettingError: Its folder is missing, or something else than a bundle is there.
    """
    if not path.parent.is_dir():
        raise SettingError(OPTION, path, f"there is no folder {path.parent}", f"give a new file: {OPTION} FILE")
    if path.exists() and not _is_bundle(path):
        raise SettingError(OPTION, path, "there is something else than a bundle", f"give a new file: {OPTION} FILE")


def check_cache(folder: Path) -> None:
    """Check that a folder is a Hugging Face cache.

    Raises:
        SettingError: It is not.
    """
    if not is_cache(folder):
        hint = "give a folder that has `datasets` or `hub` in it, as HF_CACHE or HF_HOME names it"
        raise SettingError("--dataset", folder, "it is not a Hugging Face cache", hint)


def write_bundle(
    output: Path, description: Description, fab: bytes, packages: bytes, tag: str, cache: Path | None
) -> None:
    """Write a bundle. An interrupt or an error leaves no part of it.

    Args:
        output: The file. A bundle that is there already is replaced.
        description: What the bundle is.
        fab: The app.
        packages: The list of the packages in the images.
        tag: The tag that the images have here.
        cache: A Hugging Face cache to add; None for none.

    Raises:
        SettingError: The file cannot be written, or is something else than a bundle.
        HostError: Docker does not have the images, or fails.
    """
    with _new_file(output) as file:
        tar = TarWriter(file, folder_name(description))
        tar.add(contents.RUN, (TEMPLATES / "run").read_bytes(), 0o755)
        readme = Template((TEMPLATES / "README.txt").read_text(encoding="utf-8")).substitute(asdict(description))
        tar.add(contents.README, readme.encode())
        tar.add(contents.DESCRIPTION, description.text().encode())
        settings = settings_file(description, os.environ, has_cache=cache is not None)
        tar.add(contents.SETTINGS, settings.encode(), checksum=False)
        for name in compose_files():
            tar.add(name, (PROJECT / name).read_bytes())
        for name in contents.MOUNTED_FOLDERS:
            tar.add_folder(name)
        tar.add(contents.APP, fab)
        tar.add(contents.PACKAGES, packages)
        if cache is not None:
            _add_cache(tar, cache)
        tar.add(contents.IMAGES, image_archive.save(tag, description.tag))
        tar.add(contents.CHECKSUMS, tar.checksums(), checksum=False)  # last: without it a bundle is incomplete
        tar.close()


def compose_files() -> list[str]:
    """Return the files that Compose needs, as paths in the checkout."""
    overlays = sorted(path for path in (PROJECT / contents.COMPOSE_FOLDER).iterdir() if path.is_file())
    return [contents.COMPOSE_FILE, *(str(path.relative_to(PROJECT)) for path in overlays)]


def settings_file(description: Description, environment: Mapping[str, str], *, has_cache: bool) -> str:
    """Return the settings of a bundle's fleet, as `.env` has them.

    Args:
        description: What the bundle is.
        environment: The settings here.
        has_cache: Whether the bundle has a Hugging Face cache.

    Raises:
        SettingError: A setting cannot be written to such a file.
    """
    values = {
        "COMPOSE_PROJECT_NAME": "bouquet-" + re.sub(r"[^a-z0-9_-]+", "-", description.name.lower()),
        "TAG": description.tag,
        "HF_HUB_OFFLINE": "1",
        **({"COMPOSE_FILE": f"{contents.COMPOSE_FILE}:{GPU_OVERLAY}"} if description.images_for == "gpu" else {}),
        **({"HF_CACHE": f"./{contents.CACHE}"} if has_cache else {}),
        **{name: environment[name] for name in contents.TRAVELLING if environment.get(name)},
    }
    for name, value in values.items():
        if "'" in value or "\n" in value:
            raise SettingError(name, value, "a bundle cannot have a setting with ' in it", 'use " instead')
    lines = [f"{name}='{value}'" for name, value in values.items()]
    return "\n".join(["# Settings of this bundle's fleet; the environment wins. README.txt has more.", *lines, ""])


def _name_and_version(app: Path) -> tuple[str, str]:
    project = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    name, app_version = (str(project.get(key) or "") for key in ("name", "version"))
    if not all(re.fullmatch(r"[A-Za-z0-9][\w.+!-]*", value) for value in (name, app_version)):
        raise SettingError("APP", app, "its pyproject.toml has no name and version", "add them under [project]")
    return name, app_version


def _is_bundle(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:") as tar:
            first = tar.next()
            return first is not None and first.name.endswith(f"/{contents.RUN}")
    except (OSError, tarfile.TarError):
        return False


def _add_cache(tar: TarWriter, cache: Path) -> None:
    """Add the data of a cache, and no token. Links within it, which the hub's part is full of, stay links.

    Raises:
        SettingError: The data is behind a link that leads out of the cache.
    """
    for part in PARTS:
        root = (cache / part).resolve()
        for path in sorted(root.rglob("*")):
            name = f"{contents.CACHE}/{part}/{path.relative_to(root)}"
            if path.is_symlink() and not path.readlink().is_absolute() and path.resolve().is_relative_to(root):
                tar.add_link(name, str(path.readlink()))
            elif path.is_symlink() and path.is_dir():
                hint = f"copy the cache without links: cp -rL {cache} FOLDER"
                raise SettingError("--dataset", path, "is a link out of the cache", hint)
            elif path.is_file() and path.suffix != ".lock":
                tar.add(name, _parts(path))


def _parts(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while part := file.read(CHUNK):
                yield part
    except OSError as error:
        hint = "give this user access to it"
        raise SettingError("--dataset", path, f"cannot be read ({error.strerror})", hint) from error


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file that replaces the one at `path` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    check_output(path)
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except FileExistsError:
        hint = f"wait for the other `bouquet bundle`, or remove {temporary}"
        raise SettingError(OPTION, path, f"{temporary} exists", hint) from None
    except OSError as error:
        temporary.unlink(missing_ok=True)
        hint = f"free some space, or give another file: {OPTION} FILE"
        raise SettingError(OPTION, path, f"cannot be written ({error.strerror})", hint) from error
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
