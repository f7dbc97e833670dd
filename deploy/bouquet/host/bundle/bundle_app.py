"""`bouquet bundle`: builds what an app needs, and writes it into one file."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from bouquet.errors import SettingError
from bouquet.host.app_project import SETTING, read_project
from bouquet.host.bundle import create, image_archive
from bouquet.host.interrupts import ends_at_once
from bouquet.host.packages.package_list import image_tag, package_list
from bouquet.settings.host import HostSettings

NOTHING_WRITTEN = "interrupted; no bundle was written"
MIB = 1 << 20


def bundle_app(settings: HostSettings, output: Path | None, cache: Path | None) -> Iterator[str]:
    """Write the bundle of an app; yield one line for each thing found or done.

    Args:
        settings: The settings: the app, and what the images are built from.
        output: The file; None for the app's name and version, in the current folder.
        cache: A Hugging Face cache to add; None for none.

    Raises:
        SettingError: APP is not a Flower App, or the file cannot be written.
        HostError: A package cannot be installed, or Docker does not answer.
        FleetError: The images did not build.
    """
    read_project(settings.app)
    if cache is not None:
        create.check_cache(cache)
    path = output or create.default_output(settings.app)
    create.check_output(path)
    image_archive.docker_platform()  # needs Docker: find out before the minutes of a build
    # Imported here: importing Flower is slow, and the library for Docker is not needed by other commands.
    with ends_at_once(NOTHING_WRITTEN):
        from bouquet.flower.app_fab import build_fab  # noqa: PLC0415
        from bouquet.host.fleet.compose import ComposeFleet  # noqa: PLC0415
    try:
        fab = build_fab(settings.app)
    except ValueError as error:
        raise SettingError(
            SETTING, settings.app, f"Flower does not accept it: {error}", "correct it and retry"
        ) from error
    fleet = ComposeFleet(settings)
    gpus = fleet.uses_gpus()
    packages = package_list(settings.app, settings, gpus=gpus, python=fleet.python())
    yield from fleet.prepare(packages)
    tag = image_tag(settings.tag, packages.digest)
    description = create.describe(settings.app, tag, gpus=gpus)
    create.write_bundle(path, description, fab, packages.path.read_bytes(), tag, cache)
    yield f"{path}: {path.stat().st_size / MIB:.0f} MiB, {description.name} {description.version} with its images"
    yield f"run it where only Docker is: tar -xf {shlex.quote(path.name)} && {create.folder_name(description)}/run"
